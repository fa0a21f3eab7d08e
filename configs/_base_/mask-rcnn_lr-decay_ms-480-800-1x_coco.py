# Mask R-CNN on COCO with learning rates that decay from the head to the stem
_base_ = './mask-rcnn_ms-480-800-1x_coco.py'

optim_wrapper = dict(
    constructor='plugconv_mm.LearningRateDecayOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, decay_rate=0.95, decay_type='layer_wise', num_layers=6))
