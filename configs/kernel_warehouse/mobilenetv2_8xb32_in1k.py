# the baseline: a plain MobileNetV2
_base_ = './kw1x-mobilenetv2_8xb32_in1k.py'

model = dict(
    backbone=dict(_delete_=True, type='plugconv_mm.ParCMobileNetV2', parc_blocks=(0, ) * 7, out_indices=(3, )),
    head=dict(loss=dict(_delete_=True, type='CrossEntropyLoss')))
custom_hooks = _base_.custom_hooks[:-1]  # no temperature
