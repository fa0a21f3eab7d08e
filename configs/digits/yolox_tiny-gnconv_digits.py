_base_ = [
    '../_base_/datasets/digits_instance.py',
    '../_base_/schedules/digits_7e.py',
    'mmdet::_base_/default_runtime.py',
    '../_base_/runtime.py',
]
custom_imports = dict(imports=['plugconv_mm'])

# two thirds of the width of YOLOX-tiny
yolox = dict(
    type='YOLOX',
    data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=32),
    backbone=dict(type='CSPDarknet', deepen_factor=0.33, widen_factor=0.25, out_indices=(2, 3, 4)),
    neck=dict(type='YOLOXPAFPN', in_channels=[64, 128, 256], out_channels=64, num_csp_blocks=1),
    bbox_head=dict(type='YOLOXHead', num_classes=10, in_channels=64, feat_channels=64),
    train_cfg=dict(assigner=dict(type='SimOTAAssigner', center_radius=2.5)),
    test_cfg=dict(score_thr=0.01, nms=dict(type='nms', iou_threshold=0.65)))
model = dict(
    type='plugconv_mm.plug',
    model=yolox,
    rules=[
        dict(
            target=r're:neck\..*_blocks\..*\.conv2\.conv',
            where=dict(kernel_size=3),
            to=dict(type='plugconv_mm.GnConv2d', order=3))
    ])
val_evaluator = dict(metric='bbox')
test_evaluator = val_evaluator
