# UPerNet on ADE20K, without the settings that depend on the size of the crops
_base_ = [
    './models/upernet.py',
    './schedules/ade20k_adamw_160k.py',
    'mmseg::_base_/default_runtime.py',
    './hooks.py',
]
custom_imports = dict(imports=['plugconv_mm'])

tta_transforms = [  # after the resize to several scales
    [dict(type='RandomFlip', prob=prob, direction='horizontal') for prob in (0., 1.)],
    [dict(type='LoadAnnotations')],
    [dict(type='PackSegInputs')],
]
