_base_ = './fpn_resnet50_distant-cue.py'

model = dict(backbone=dict(parc_blocks=(0, 0, 3, 1)))
