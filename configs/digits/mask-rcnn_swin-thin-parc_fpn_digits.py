_base_ = './mask-rcnn_parc-resnet50-thin_horfpn_digits.py'

swin = dict(
    type='SwinTransformer', embed_dims=32, depths=[2, 2, 2, 2], num_heads=[1, 2, 4, 8], window_size=5,
    drop_path_rate=0.)
model = dict(
    _delete_=True,
    type='plugconv_mm.plug',
    model=dict(
        _base_.model,
        backbone=swin,
        neck=dict(type='FPN', in_channels=[32, 64, 128, 256], out_channels=64, num_outs=4)),
    rules=[dict(target=r're:backbone\.stages\.3\..*\.attn', to=dict(type='plugconv_mm.ParCMixer'))])
