_base_ = ['mmpretrain::_base_/datasets/imagenet_bs64_swin_256.py', '../_base_/imagenet_pvt_300e.py']

model = dict(backbone=dict(type='plugconv_mm.TransCNN', arch='tiny'), head=dict(in_channels=512))
train_dataloader = dict(batch_size=128, sampler=dict(type='RepeatAugSampler'))  # three views of an image
