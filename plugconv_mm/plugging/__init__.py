"""Operators in the layers of models that exist, in plain PyTorch: :func:`plug`."""
from plugconv_mm.plugging.attention import ATTENTIONS
from plugconv_mm.plugging.blocks import BLOCKS
from plugconv_mm.plugging.convs import CONVS
from plugconv_mm.plugging.plug import plug
from plugconv_mm.plugging.plugged import PluggedAttention, PluggedBlock, PluggedConv2d, merge, unplug
from plugconv_mm.plugging.report import Plugged, PlugReport
from plugconv_mm.plugging.rules import Rule

__all__ = ['ATTENTIONS', 'BLOCKS', 'CONVS', 'PlugReport', 'Plugged', 'PluggedAttention', 'PluggedBlock',
           'PluggedConv2d', 'Rule', 'merge', 'plug', 'unplug']
