# a digit's class is the colour of a disc far away from it; the baseline of 3x3 convolutions
_base_ = '../_base_/study.py'

default_hooks = dict(checkpoint=dict(interval=500))
