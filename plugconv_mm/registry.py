"""Registries of PlugConv-MM: children of mmengine's root registries under the scope ``plugconv_mm``.

A config of mmdet, mmseg or mmpretrain reaches what is registered here as ``type='plugconv_mm.<Name>'`` after
``custom_imports = dict(imports=['plugconv_mm'])``.
"""
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import Registry

MODELS = Registry('model', parent=MMENGINE_MODELS, scope='plugconv_mm', locations=['plugconv_mm.models'])
