_base_ = './faster-rcnn_r50-thin_horfpn_digits.py'

# ParC beside the 3x3 convolutions of the last stage; model.checkpoint=FILE starts from trained weights
model = dict(
    _delete_=True,
    type='plugconv_mm.plug',
    model={{_base_.model}},
    rules=[
        dict(
            target=r're:backbone\.layer4\..*\.conv2',
            where=dict(stride=1),
            to=dict(type='plugconv_mm.ParCHW2d'),
            start='residual')
    ])
