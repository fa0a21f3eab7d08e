# Weights, gradients and the optimizer's moments sharded over the processes, for models larger than a GPU's memory.
# It is listed after the config to be sharded:
#     _base_ = ['./hornet-large-gf_64xb64_in21k.py', '../_base_/fsdp.py']
runner_type = 'FlexibleRunner'
strategy = dict(type='plugconv_mm.FSDPStrategy')
