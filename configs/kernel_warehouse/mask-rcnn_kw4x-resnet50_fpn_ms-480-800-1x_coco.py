_base_ = './mask-rcnn_kw1x-resnet50_fpn_ms-480-800-1x_coco.py'

model = dict(backbone=dict(cell_num_ratio=4, init_cfg=dict(checkpoint='checkpoints/kw4x_resnet50.pth')))
