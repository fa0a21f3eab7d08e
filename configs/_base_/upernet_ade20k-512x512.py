# 8 GPUs x 2 crops of 512x512, sliding windows in the test, six scales with flips for --tta
_base_ = ['./upernet_ade20k.py', 'mmseg::_base_/datasets/ade20k.py']

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)))
train_dataloader = dict(batch_size=2)
tta_scales = [(2048 * percent // 100, 512 * percent // 100) for percent in (50, 75, 100, 125, 150, 175)]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[[dict(type='Resize', scale=scale, keep_ratio=True) for scale in tta_scales],
                    *_base_.tta_transforms]),
]
