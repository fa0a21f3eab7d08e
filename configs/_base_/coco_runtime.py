# mmdet's runtime, our plug-ins and hooks, and three scales with flips for --tta
_base_ = ['mmdet::_base_/default_runtime.py', './hooks.py']
custom_imports = dict(imports=['plugconv_mm'])

tta_model = dict(type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100))
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[[dict(type='Resize', scale=(1333, side), keep_ratio=True) for side in (640, 800, 960)],
                    [dict(type='RandomFlip', prob=prob) for prob in (0., 1.)],
                    [dict(type='LoadAnnotations', with_bbox=True)],
                    [dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                                                           'scale_factor', 'flip', 'flip_direction'))]]),
]
