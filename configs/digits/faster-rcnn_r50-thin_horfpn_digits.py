_base_ = './mask-rcnn_parc-resnet50-thin_horfpn_digits.py'

# a plain ResNet, and boxes alone
model = dict(
    type='FasterRCNN',
    backbone=dict(type='ResNet'),
    roi_head=dict(mask_roi_extractor=None, mask_head=None))
val_evaluator = dict(metric='bbox')
test_evaluator = val_evaluator
