_base_ = './hornet-small-7x7_32xb128_in1k.py'

train_pipeline = _base_.train_pipeline  # its fourth step is RandAugment
train_pipeline[3].update(magnitude_level=12)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

model = dict(backbone=dict(arch='small-gf'))
optim_wrapper = dict(clip_grad=dict(max_norm=1))
