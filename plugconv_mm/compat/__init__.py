"""Compatibility with the packages of OpenMMLab: mmcv's operators without a compiler, safe loading of checkpoints."""
