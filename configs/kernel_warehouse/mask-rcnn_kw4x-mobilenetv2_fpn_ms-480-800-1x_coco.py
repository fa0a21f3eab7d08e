_base_ = './mask-rcnn_kw1x-mobilenetv2_fpn_ms-480-800-1x_coco.py'

model = dict(
    backbone=dict(
        cell_num_ratio=4,
        sharing_range=('layer', ),
        init_cfg=dict(checkpoint='checkpoints/kw4x_mobilenetv2_100.pth')))
