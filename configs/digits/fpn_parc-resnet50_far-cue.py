_base_ = './fpn_resnet50_far-cue.py'

model = dict(backbone=dict(parc_blocks=(0, 0, 3, 1)))
