"""Names that stand for something else for a while."""
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

Place = tuple[Any, str, Any]  # owner of a name, the name, and what stands for it


@contextmanager
def replaced(places: Sequence[Place]) -> Iterator[None]:
    """Give names other values, and take them back afterwards; names that an owner had not itself are deleted."""
    missing = object()
    before = [vars(owner).get(name, missing) for owner, name, _ in places]
    try:
        for place in places:
            setattr(*place)
        yield
    finally:
        for (owner, name, _), old in zip(places, before, strict=True):
            if old is missing:
                delattr(owner, name)
            else:
                setattr(owner, name, old)
