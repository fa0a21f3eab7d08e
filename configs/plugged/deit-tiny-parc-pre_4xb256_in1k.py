_base_ = './deit-tiny-parc_4xb256_in1k.py'

# all of DeiT-T but the attention
model = dict(
    checkpoint='https://mmassets.onedl.ai/mmclassification/v0/deit/deit-tiny_pt-4xb256_in1k_20220218-13b382a0.pth')
