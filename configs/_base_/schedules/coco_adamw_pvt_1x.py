# as for PVT: 8 GPUs x 2 images, 12 epochs with steps at 8 and 11, warm-up of 500 iterations, decay of all weights
_base_ = 'mmdet::_base_/schedules/schedule_1x.py'

optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=1e-4))
