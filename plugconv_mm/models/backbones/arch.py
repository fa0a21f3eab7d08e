"""Settings of an architecture, given by name or stage by stage."""
from collections.abc import Sequence
from typing import Any


def look_up_arch(arch: str | dict[str, Any], known: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Find the settings of an architecture.

    Args:
        arch: A name among the known ones, or a dict with their keys and number of stages.
        known: Settings by name.

    Raises:
        ValueError: An unknown name, or a dict with other keys or another number of stages.
    """
    example = next(iter(known.values()))
    if isinstance(arch, dict):
        if set(arch) != set(example):
            raise ValueError(f'a dict as arch has the keys {", ".join(sorted(example))}; missing: '
                             f'{sorted(set(example) - set(arch))}, unknown: {sorted(set(arch) - set(example))}')
        check_per_stage(len(example['depths']), **arch)
        return arch
    if arch not in list(known):
        raise ValueError(f'unknown arch {arch!r}: give one of {", ".join(known)}, or a dict with the keys '
                         f'{", ".join(sorted(example))}')
    return known[arch]


def check_per_stage(num_stages: int, **settings: Sequence) -> None:
    """Check that every setting gives one value for each of `num_stages` stages.

    Raises:
        ValueError: A setting does not.
    """
    for name, values in settings.items():
        if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != num_stages:
            raise ValueError(f'{name} gives a value for each of {num_stages} stages, got {values!r}')


def check_strides_and_dilations(num_stages: int, strides: Sequence[int], dilations: Sequence[int]) -> None:
    """Check strides and dilations of `num_stages` stages, or groups of blocks.

    Raises:
        ValueError: Other strides than 1 and 2, dilations below 1 or that are no integers, or another number of them.
    """
    check_per_stage(num_stages, strides=strides, dilations=dilations)
    if any(stride not in (1, 2) for stride in strides):
        raise ValueError(f'a stage keeps the resolution or halves it, so strides are 1 or 2, got {strides!r}')
    if any(not isinstance(dilation, int) or dilation < 1 for dilation in dilations):
        raise ValueError(f'dilations are integers of at least 1, which does not dilate, got {dilations!r}')
