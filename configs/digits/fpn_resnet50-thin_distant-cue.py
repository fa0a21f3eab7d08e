# the class of a digit is the colour of a distant disc; the baseline of 3x3 convolutions
_base_ = '../_base_/study.py'

default_hooks = dict(checkpoint=dict(interval=500))
