_base_ = './fpn_resnet50-thin_distant-cue.py'

model = dict(backbone=dict(parc_blocks=(0, 3, 0, 0)))
