_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/datasets/digits_instance.py',
    '../_base_/schedules/digits_7e.py',
    'mmdet::_base_/default_runtime.py',
    '../_base_/runtime.py',
]
custom_imports = dict(imports=['plugconv_mm'])

model = dict(
    # training is too short for residual branches that start at zero
    backbone=dict(
        _delete_=True, type='plugconv_mm.ParCResNet', depth=50, base_channels=16, zero_init_residual=False),
    neck=dict(type='plugconv_mm.HorFPN', in_channels=[64, 128, 256, 512], out_channels=64, num_outs=4),
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        # digits have 16 to 64 pixels, and are taller than wide
        anchor_generator=dict(scales=[4], ratios=[1.0, 2.0], strides=[4, 8, 16, 32])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64),
        bbox_head=dict(
            in_channels=64,
            fc_out_channels=256,
            num_classes=10,
            # with the default deviation of 0.01 of fc_cls the scores of the digits are almost equal for a hundred steps
            init_cfg=[
                dict(type='Normal', std=0.1, override=dict(name='fc_cls')),
                dict(type='Normal', std=0.001, override=dict(name='fc_reg')),
                dict(type='Xavier', distribution='uniform', override=dict(name='shared_fcs'))
            ]),
        mask_roi_extractor=dict(out_channels=64),
        mask_head=dict(num_convs=2, in_channels=64, conv_out_channels=64, num_classes=10)),
    # two to five digits an image need fewer samples and proposals than COCO
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=400, max_per_img=100),
        rcnn=dict(sampler=dict(num=32, pos_fraction=0.5))),
    test_cfg=dict(rpn=dict(nms_pre=400, max_per_img=100), rcnn=dict(max_per_img=20)))
