"""What is gathered at a time where parameters are sharded over processes (FSDP)."""
from torch import nn

from plugconv_mm.models.backbones.base import ResidualBlock


def wrap_residual_blocks(module: nn.Module, recurse: bool, nonwrapped_numel: int) -> bool:
    """An ``auto_wrap_policy`` of FSDP: each residual block of our backbones is gathered, and freed again, as a whole.

    A policy by size would wrap single convolutions, whose kernels gnConv, SLaK and KernelWarehouse use without calling
    them.

    Args:
        module: A part of the model.
        recurse: Whether FSDP asks if it should look inside, and not if it should wrap the part.
        nonwrapped_numel: Parameters of the part that no other wrapper has.

    Example:
        In a config::

            runner_type = 'FlexibleRunner'
            strategy = dict(type='FSDPStrategy', model_wrapper=dict(
                auto_wrap_policy='plugconv_mm.engine.sharding.wrap_residual_blocks'))
    """
    return recurse or isinstance(module, ResidualBlock)
