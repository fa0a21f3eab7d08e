"""Stands in for the package ``panopticapi``, which is in no package index, where it is not installed.

mmdet reads COCO's panoptic annotations and computes the panoptic quality with a few of its functions. Here they are,
from their definition (Kirillov et al., "Panoptic Segmentation", https://arxiv.org/abs/1801.00868). An installed
panopticapi is used in their place.
"""
import sys
from collections import defaultdict
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

import numpy as np

OFFSET = 256**3  # beyond every identifier of a segment
VOID = 0


def rgb2id(color):
    """Identifiers of segments, (...) from colours (..., 3): R + 256 G + 256² B."""
    return np.asarray(color).astype(np.int64) @ np.array([1, 256, 256**2])


def id2rgb(identifiers):
    """Colours (..., 3, uint8) of identifiers (...); the inverse of :func:`rgb2id`."""
    identifiers = np.asarray(identifiers).astype(np.int64)
    return np.stack([identifiers >> shift & 255 for shift in (0, 8, 16)], -1).astype(np.uint8)


class PQStatCat:
    """Matches of one category: the sum of the IoUs of the true positives, and the counts."""

    def __init__(self):
        self.iou = 0.
        self.tp = self.fp = self.fn = 0

    def __iadd__(self, other):
        for name in ('iou', 'tp', 'fp', 'fn'):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self


class PQStat:
    """Matches by category."""

    def __init__(self):
        self.pq_per_cat = defaultdict(PQStatCat)

    def __getitem__(self, category):
        return self.pq_per_cat[category]

    def __iadd__(self, other):
        for category, matches in other.pq_per_cat.items():
            self.pq_per_cat[category] += matches
        return self

    def pq_average(self, categories, isthing):
        """The panoptic quality over categories, and of each.

        Args:
            categories (dict): By identifier; ``isthing`` of each is 0 or 1.
            isthing (bool | None): Take only things, or only stuff; None takes both.

        Returns:
            tuple: A dict with the means ``pq``, ``sq`` and ``rq`` over the ``n`` categories that occur, and a dict of
            dicts with these three by category.
        """
        single = {}
        seen = []
        for category, info in categories.items():
            if isthing is not None and isthing != (info['isthing'] == 1):
                continue
            s = self.pq_per_cat[category]
            segments = s.tp + 0.5 * s.fp + 0.5 * s.fn
            single[category] = dict(pq=s.iou / segments if segments else 0., sq=s.iou / s.tp if s.tp else 0.,
                                    rq=s.tp / segments if segments else 0.)
            if segments:
                seen.append(single[category])
        means = {key: sum(entry[key] for entry in seen) / max(len(seen), 1) for key in ('pq', 'sq', 'rq')}
        return dict(means, n=len(seen)), single


_CONTENTS = {
    'panopticapi': (),
    'panopticapi.evaluation': ('OFFSET', 'VOID', 'PQStat', 'PQStatCat'),
    'panopticapi.utils': ('rgb2id', 'id2rgb'),
}


class _PanopticFinder(MetaPathFinder, Loader):

    def find_spec(self, fullname, path=None, target=None):
        return ModuleSpec(fullname, self, is_package=fullname == 'panopticapi') if fullname in _CONTENTS else None

    def create_module(self, spec):
        return ModuleType(spec.name)

    def exec_module(self, module):
        for name in _CONTENTS[module.__name__]:
            setattr(module, name, globals()[name])


def install():
    """Make ``panopticapi`` importable; behind every other finder, so that the real one goes first."""
    if not any(isinstance(finder, _PanopticFinder) for finder in sys.meta_path):
        sys.meta_path.append(_PanopticFinder())
