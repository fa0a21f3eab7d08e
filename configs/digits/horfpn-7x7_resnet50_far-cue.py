_base_ = './fpn_resnet50_far-cue.py'

model = dict(neck=dict(type='plugconv_mm.HorFPN', filter='7x7'))
