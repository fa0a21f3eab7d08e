_base_ = './rtmdet_tiny-k13_digits.py'

head = dict(
    _base_.model.model.bbox_head, type='RTMDetInsSepBNHead',
    loss_mask=dict(type='DiceLoss', loss_weight=2.0, eps=5e-6, reduction='mean'))
model = dict(
    _delete_=True,
    type='plugconv_mm.plug',
    model=dict(_base_.model.model, bbox_head=head),
    input_size=(160, 160),
    rules=[
        dict(
            target=r're:backbone\.stage4\..*',
            where=dict(kernel_size=5, groups='depthwise'),
            to=dict(type='plugconv_mm.ParCHW2d', meta_size='auto'),
            start='residual')
    ])
train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline))
val_evaluator = dict(metric=['bbox', 'segm'])
test_evaluator = val_evaluator
