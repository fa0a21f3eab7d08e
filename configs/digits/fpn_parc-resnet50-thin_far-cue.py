_base_ = './fpn_resnet50-thin_far-cue.py'

model = dict(backbone=dict(parc_blocks=(0, 3, 0, 0)))
