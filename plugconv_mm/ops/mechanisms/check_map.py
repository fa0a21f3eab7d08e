"""Checks of the maps that operators take."""
from torch import Tensor


def check_map(x: Tensor, channels: int, name: str) -> None:
    """Check that `x` is a real map (N, C, H, W) with `channels` channels and at least one position.

    Args:
        x: The input of an operator.
        channels: C, as the operator was built.
        name: Name of the operator, for the message.

    Raises:
        ValueError: If it is anything else.
    """
    if x.dim() != 4:
        raise ValueError(f'{name} takes a (N, C, H, W) tensor, got shape {tuple(x.shape)}')
    if not x.is_floating_point():
        raise ValueError(f'{name} takes a real floating-point tensor, got {x.dtype}: convert it, e.g. with x.float()')
    if x.shape[1] != channels:
        raise ValueError(f'{name} was built for {channels} channels, got {x.shape[1]} in shape {tuple(x.shape)}')
    if x.shape[2] < 1 or x.shape[3] < 1:
        raise ValueError(f'{name} needs a map of at least 1x1, got shape {tuple(x.shape)}')
