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
