"""Backbones whose convolutions share kernel warehouses."""
from collections.abc import Sequence

from torch import nn

from plugconv_mm.models.backbones.base import Backbone
from plugconv_mm.ops import KernelWarehouse, KWConv2d, KWLinear


class KWBackbone(Backbone):
    """A backbone whose convolutions mix their kernels from ``warehouse_manager``."""

    def __init__(self, warehouse: KernelWarehouse, out_indices: Sequence[int], frozen_stages: int, norm_eval: bool,
                 init_cfg: dict | list[dict] | None) -> None:
        super().__init__(out_indices, frozen_stages, norm_eval, init_cfg)
        self.warehouse_manager = warehouse

    def set_temperature(self, temperature: float) -> None:
        """Set τ of the attentions: 1 at the start of training from scratch, 0 (as at first) when it is warmed up."""
        self.warehouse_manager.set_temperature(temperature)

    def _freeze_stages(self) -> None:
        super()._freeze_stages()
        # Cells are frozen where no layer that trains draws from them.
        frozen = {m for stage in range(self.frozen_stages + 1) for module in self.stage_modules(stage)
                  for m in module.modules()}
        training = {m.warehouse_index for m in self.modules()
                    if isinstance(m, (KWConv2d, KWLinear)) and m not in frozen}
        if frozen:
            for i, cells in enumerate(self.warehouse_manager.weights):
                if i not in training:
                    cells.requires_grad_(False)


def conv(warehouse: KernelWarehouse, name: str, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1,
         groups: int = 1, dynamic: bool = True, dilation: int = 1) -> nn.Module:
    """Make a same-padded convolution, of the warehouse where it is dynamic."""
    padding = dilation * (kernel_size - 1) // 2
    if dynamic:
        return KWConv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False,
                        warehouse=warehouse, name=name)
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False)
