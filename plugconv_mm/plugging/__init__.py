"""Operators in the layers of models that exist, in plain PyTorch: :func:`plug`."""
from plugconv_mm.plugging.attention import ATTENTIONS
from plugconv_mm.plugging.convs import CONVS
from plugconv_mm.plugging.plug import plug
from plugconv_mm.plugging.plugged import PluggedAttention, PluggedConv2d, unplug
from plugconv_mm.plugging.report import Plugged, PlugReport
from plugconv_mm.plugging.rules import Rule

__all__ = ['ATTENTIONS', 'CONVS', 'PlugReport', 'Plugged', 'PluggedAttention', 'PluggedConv2d', 'Rule', 'plug',
           'unplug']
