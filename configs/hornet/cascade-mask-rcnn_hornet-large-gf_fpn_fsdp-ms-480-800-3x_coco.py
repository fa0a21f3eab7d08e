# With AdamW the 259M parameters and their moments take 4.1 GB in float32, of which each of 8 GPUs holds an eighth.
_base_ = ['./cascade-mask-rcnn_hornet-large-gf_fpn_ms-480-800-3x_coco.py', '../_base_/fsdp.py']
