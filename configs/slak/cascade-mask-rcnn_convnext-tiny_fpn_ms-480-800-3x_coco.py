# the baseline: a plain ConvNeXt-T
_base_ = './cascade-mask-rcnn_slak-tiny_fpn_ms-480-800-3x_coco.py'
custom_imports = dict(imports=['plugconv_mm', 'mmpretrain.models'])

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.ConvNeXt',
        arch='tiny',
        out_indices=(0, 1, 2, 3),
        gap_before_final_norm=False,
        drop_path_rate=0.4,
        init_cfg=dict(
            type='Pretrained',
            prefix='backbone.',
            checkpoint='https://download.openmmlab.com/mmclassification/v0/convnext/downstream/'
            'convnext-tiny_3rdparty_32xb128-noema_in1k_20220301-795e9634.pth')),
    neck=dict(in_channels=[96, 192, 384, 768]))
custom_hooks = _base_.custom_hooks[:-1]  # no sparsity
