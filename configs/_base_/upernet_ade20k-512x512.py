# UPerNet on ADE20K: 8 GPUs x 2 crops of 512x512, sliding windows in the test, six scales with flips for --tta
_base_ = [
    './models/upernet.py',
    'mmseg::_base_/datasets/ade20k.py',
    './schedules/ade20k_adamw_160k.py',
    'mmseg::_base_/default_runtime.py',
    './hooks.py',
]
custom_imports = dict(imports=['plugconv_mm'])

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
                    [dict(type='RandomFlip', prob=prob, direction='horizontal') for prob in (0., 1.)],
                    [dict(type='LoadAnnotations')], [dict(type='PackSegInputs')]]),
]
