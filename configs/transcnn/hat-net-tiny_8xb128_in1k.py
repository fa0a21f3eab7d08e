_base_ = ['mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py', '../_base_/imagenet_pvt_300e.py']

model = dict(backbone=dict(type='plugconv_mm.HATNet', arch='tiny'), head=dict(in_channels=384))
train_dataloader = dict(batch_size=128, sampler=dict(type='RepeatAugSampler'))  # three views of an image
