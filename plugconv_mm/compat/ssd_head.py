"""Predictions of mmdet's SSDHead, which has no ``loss_cls``.

Every dense head of mmdet asks its ``loss_cls``, as it predicts, whether that has scores of its own. SSDHead computes
its losses by functions, has no such attribute, and ends in an AttributeError.
"""
import functools
from types import ModuleType
from typing import Any

from plugconv_mm.compat.imports import after_import


def _name_the_loss(module: ModuleType) -> None:
    original = module.SSDHead.__init__

    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if not hasattr(self, 'loss_cls'):
            self.loss_cls = None

    module.SSDHead.__init__ = __init__


def install() -> None:
    """Mend the head, now or as soon as mmdet's is imported."""
    after_import('mmdet.models.dense_heads.ssd_head', _name_the_loss)
