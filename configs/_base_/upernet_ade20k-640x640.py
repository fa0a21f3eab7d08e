# 8 GPUs x 2 crops of 640x640, sliding windows in the test, six scales with flips for --tta
_base_ = ['./upernet_ade20k.py', 'mmseg::_base_/datasets/ade20k_640x640.py']

model = dict(
    data_preprocessor=dict(size=(640, 640)),
    test_cfg=dict(mode='slide', crop_size=(640, 640), stride=(426, 426)))
train_dataloader = dict(batch_size=2)
tta_scales = [(2560 * percent // 100, 640 * percent // 100) for percent in (50, 75, 100, 125, 150, 175)]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[[dict(type='Resize', scale=scale, keep_ratio=True) for scale in tta_scales],
                    *_base_.tta_transforms]),
]
