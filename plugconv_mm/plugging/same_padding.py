"""Arguments of a convolution whose output is as large as its input."""
from typing import TypeAlias

from torch.nn.modules.utils import _pair

Size: TypeAlias = int | tuple[int, int]


def check_same_padding(operator: str, kernel_size: Size, stride: Size, padding: Size | str | None,
                       dilation: Size) -> tuple[tuple[int, int], tuple[int, int]]:
    """Check that a convolution with these arguments of ``nn.Conv2d`` keeps the size of any map.

    Args:
        operator: Name of the operator that takes its place, for the message.
        kernel_size: As in ``nn.Conv2d``.
        stride: Only 1 keeps the size.
        padding: Half of the dilated kernel, or None, which stands for it.
        dilation: Spacing of the kernel.

    Returns:
        Kernel size and padding as pairs.

    Raises:
        ValueError: If it would not keep the size.
    """
    rows, columns = _pair(kernel_size)
    same = tuple(d * (k - 1) / 2 for k, d in zip((rows, columns), _pair(dilation), strict=True))
    given = same if padding is None or padding == 'same' else _pair(0 if padding == 'valid' else padding)
    if _pair(stride) != (1, 1) or given != same:
        raise ValueError(
            f'{operator} gives a map of the size of its input and replaces only convolutions that do so: with stride 1 '
            f'and "same" padding, half of the kernel. Got kernel_size={kernel_size}, stride={stride}, '
            f'padding={padding}, dilation={dilation}: leave such a layer a plain convolution')
    return (rows, columns), (int(same[0]), int(same[1]))
