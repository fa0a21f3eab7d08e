_base_ = '../horfpn/faster-rcnn_r50_horfpn_1x_coco.py'

# From the weights of Faster R-CNN with an FPN: of these the convolutions behind its sums, fpn_convs, are left over, and
# the gnConvs of HorFPN, which are in their place, start anew.
model = dict(
    _delete_=True,
    type='plugconv_mm.plug',
    model={{_base_.model}},
    checkpoint='https://download.openmmlab.com/mmdetection/v2.0/faster_rcnn/faster_rcnn_r50_fpn_1x_coco/'
    'faster_rcnn_r50_fpn_1x_coco_20200130-047c8118.pth',
    rules=[
        dict(
            target=r're:backbone\.layer4\..*\.conv2',
            where=dict(stride=1),
            to=dict(type='plugconv_mm.ParCHW2d'),
            start='residual')
    ])
