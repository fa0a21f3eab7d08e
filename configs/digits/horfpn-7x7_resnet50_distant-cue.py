_base_ = './fpn_resnet50_distant-cue.py'

model = dict(neck=dict(type='plugconv_mm.HorFPN', filter='7x7'))
