# parameters, gradients and the optimizer's moments sharded over the processes, for models that one GPU does not hold:
# name it behind the config to be sharded, as in
#     _base_ = ['./cascade-mask-rcnn_hornet-large-gf_fpn_ms-480-800-3x_coco.py', '../_base_/fsdp.py']
# On a CPU add --cfg-options strategy.model_wrapper.device_id=cpu
runner_type = 'FlexibleRunner'
strategy = dict(
    type='FSDPStrategy',
    state_dict_cfg='full',  # one checkpoint, which a single process reads, too
    model_wrapper=dict(auto_wrap_policy='plugconv_mm.engine.sharding.wrap_residual_blocks'))
