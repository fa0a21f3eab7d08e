# multi-scale augmentation as in DETR: a resize of the shorter side to 480 to 800 pixels, in half the cases after a crop
_sides = [(side, 1333) for side in range(480, 801, 32)]
multi_scale = dict(
    type='RandomChoice',
    transforms=[[dict(type='RandomChoiceResize', scales=_sides, keep_ratio=True)],
                [dict(type='RandomChoiceResize', scales=[(400, 1333), (500, 1333), (600, 1333)], keep_ratio=True),
                 dict(type='RandomCrop', crop_type='absolute_range', crop_size=(384, 600), allow_negative_crop=True),
                 dict(type='RandomChoiceResize', scales=_sides, keep_ratio=True)]])
