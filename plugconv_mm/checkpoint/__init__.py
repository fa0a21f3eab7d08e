"""Checkpoints: reading without running code, writing without half-written files, converting published ones.

Nothing but PyTorch is needed to import this package; safetensors and mmengine are used where they are asked for.
"""
from plugconv_mm.checkpoint.conversion import convert_official, convert_with_report
from plugconv_mm.checkpoint.families import FAMILIES, Family
from plugconv_mm.checkpoint.loaders import load_from_local
from plugconv_mm.checkpoint.reading import read_checkpoint
from plugconv_mm.checkpoint.state_dict import state_dict_of
from plugconv_mm.checkpoint.writing import write_checkpoint

__all__ = ['FAMILIES', 'Family', 'convert_official', 'convert_with_report', 'load_from_local',
           'read_checkpoint', 'state_dict_of', 'write_checkpoint']
