# mmpretrain's ConvNeXt-T with weights from ImageNet, the backbone of baselines. A config that uses it has
#     custom_imports = dict(imports=['plugconv_mm', 'mmpretrain.models'])
#     model = dict(backbone=dict(_base_.convnext_tiny, _delete_=True))
convnext_tiny = dict(
    type='mmpretrain.ConvNeXt',
    arch='tiny',
    out_indices=(0, 1, 2, 3),
    gap_before_final_norm=False,
    drop_path_rate=0.4,
    init_cfg=dict(
        type='Pretrained',
        prefix='backbone.',
        checkpoint='https://download.openmmlab.com/mmclassification/v0/convnext/downstream/'
        'convnext-tiny_3rdparty_32xb128-noema_in1k_20220301-795e9634.pth'))
