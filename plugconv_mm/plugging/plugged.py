"""A convolution with an operator added to it, which starts as the convolution alone."""
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from plugconv_mm.ops.kernel_warehouse.warehouse import WarehouseLayer


class PluggedConv2d(nn.Module):
    """A layer and an operator beside it: base(x) + gamma · new(x), of which gamma is zero at first.

    What it computes at first is what the layer computed, to the bit, for finite inputs. The operator gets gradients as
    soon as gamma has changed, after the first step. Attributes of the layer, such as ``weight`` or ``in_channels``, are
    found here too, and weights under the layer's own names are loaded into it.

    Args:
        base: The layer, which stays as it is.
        new: The operator.

    Shapes:
        (N, C, H, W) -> as `base` gives it.
    """

    def __init__(self, base: nn.Module, new: nn.Module) -> None:
        super().__init__()
        self.base = base
        self.new = new
        weight = base.weight
        self.gamma = nn.Parameter(weight.new_zeros(base.out_channels))  # type: ignore[operator,arg-type]
        self.register_load_state_dict_pre_hook(self._take_names_of_base)

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.base(x), self.gamma[:, None, None], self.new(x))

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in ('base', 'new', 'gamma'):
                raise
            return getattr(self.base, name)

    @staticmethod
    def _take_names_of_base(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
        """Rename the weights of a model that was not plugged yet."""
        for key in [key for key in state_dict if key.startswith(prefix)]:
            rest = key.removeprefix(prefix)
            if not rest.startswith(('base.', 'new.')) and rest != 'gamma':
                state_dict[f'{prefix}base.{rest}'] = state_dict.pop(key)


def unplug(model: nn.Module) -> list[str]:
    """Take out what was plugged with ``start='residual'``, so that the layers stand alone again.

    Args:
        model: The model, which is changed in place.

    Returns:
        The names of the layers.
    """
    plugged = {name: module for name, module in model.named_modules(remove_duplicate=False)
               if isinstance(module, PluggedConv2d)}
    replace(model, {name: module.base for name, module in plugged.items()})
    if hasattr(model, 'plugged_warehouses'):
        used = {id(module.warehouse) for module in model.modules() if isinstance(module, WarehouseLayer)}
        kept = [warehouse for warehouse in model.plugged_warehouses if id(warehouse) in used]
        model.plugged_warehouses = nn.ModuleList(kept)
        if not kept:
            del model.plugged_warehouses
    return list(plugged)


def replace(model: nn.Module, modules: Mapping[str, nn.Module]) -> None:
    """Put modules in the places of those of these names."""
    for name, module in modules.items():
        parent, _, child = name.rpartition('.')
        setattr(model.get_submodule(parent), child, module)
