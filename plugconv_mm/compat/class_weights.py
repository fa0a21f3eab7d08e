"""Class weights in the cross entropy of mmsegmentation 1.2.2, with pixels that are ignored.

It averages over the weights of the labels, and looks the label of an ignored pixel up as well: 255 is no class, and
padded images end in an IndexError. Later versions leave these pixels out, as torch does.
"""
import functools
from types import ModuleType
from typing import TYPE_CHECKING

from plugconv_mm.compat.imports import after_import

if TYPE_CHECKING:
    from torch import Tensor


def _leave_out_ignored(module: ModuleType) -> None:
    original = module.cross_entropy

    @functools.wraps(original)
    def cross_entropy(pred: 'Tensor', label: 'Tensor', weight: 'Tensor | None' = None,
                      class_weight: 'Tensor | None' = None, reduction: str = 'mean',
                      avg_factor: 'float | Tensor | None' = None, ignore_index: int = -100,
                      avg_non_ignore: bool = False) -> 'Tensor':
        if class_weight is not None and avg_factor is None and reduction == 'mean' and not (
                0 <= ignore_index < len(class_weight)):
            avg_factor = class_weight[label[label != ignore_index]].sum()
        return original(pred, label, weight, class_weight, reduction, avg_factor, ignore_index, avg_non_ignore)

    module.cross_entropy = cross_entropy


def install() -> None:
    """Mend the loss, now or as soon as mmseg's is imported."""
    after_import('mmseg.models.losses.cross_entropy_loss', _leave_out_ignored)
