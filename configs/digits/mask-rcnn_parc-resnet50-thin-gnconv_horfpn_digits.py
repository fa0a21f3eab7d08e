_base_ = './mask-rcnn_parc-resnet50-thin_horfpn_digits.py'

# gnConv beside the 3x3 convolutions of the second stage
model = dict(
    _delete_=True,
    type='plugconv_mm.plug',
    model={{_base_.model}},
    rules=[
        dict(
            target=r're:backbone\.layer2\..*\.conv2',
            where=dict(stride=1),
            to=dict(type='plugconv_mm.GnConv2d', order=3),
            start='residual')
    ])
