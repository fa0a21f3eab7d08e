_base_ = [
    '../_base_/datasets/digits_instance.py',
    '../_base_/schedules/digits_7e.py',
    'mmdet::_base_/default_runtime.py',
    '../_base_/runtime.py',
]
custom_imports = dict(imports=['plugconv_mm'])

# two thirds of the width of RTMDet-tiny
norm_cfg, act_cfg = dict(type='BN'), dict(type='SiLU', inplace=True)
rtmdet = dict(
    type='RTMDet',
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[103.53, 116.28, 123.675], std=[57.375, 57.12, 58.395], pad_mask=True,
        pad_size_divisor=32),
    backbone=dict(
        type='CSPNeXt', deepen_factor=0.167, widen_factor=0.25, expand_ratio=0.5, norm_cfg=norm_cfg, act_cfg=act_cfg),
    neck=dict(
        type='CSPNeXtPAFPN', in_channels=[64, 128, 256], out_channels=64, num_csp_blocks=1, norm_cfg=norm_cfg,
        act_cfg=act_cfg),
    bbox_head=dict(
        type='RTMDetSepBNHead',
        num_classes=10,
        in_channels=64,
        feat_channels=64,
        anchor_generator=dict(type='MlvlPointGenerator', offset=0, strides=[8, 16, 32]),
        bbox_coder=dict(type='DistancePointBBoxCoder'),
        loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
        with_objectness=False,
        norm_cfg=norm_cfg,
        act_cfg=act_cfg),
    train_cfg=dict(assigner=dict(type='DynamicSoftLabelAssigner', topk=13), allowed_border=-1, pos_weight=-1),
    test_cfg=dict(
        nms_pre=400, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.6), max_per_img=20,
        mask_thr_binary=0.5))
model = dict(
    type='plugconv_mm.plug',
    model=rtmdet,
    rules=[
        dict(
            target='re:.*',
            where=dict(kernel_size=5, groups='depthwise'),
            to=dict(type='plugconv_mm.DecomposedLargeKernelConv2d', large_kernel=13))
    ])
# boxes alone: mmdet's assignment reads masks, where there are any, as a tensor
train_dataloader = dict(
    dataset=dict(pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='Resize', scale=(160, 160), keep_ratio=True),
        dict(type='PackDetInputs'),
    ]))
val_evaluator = dict(metric='bbox')
test_evaluator = val_evaluator
