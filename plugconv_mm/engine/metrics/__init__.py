"""Evaluators that configs name; each is imported when first asked for."""
from typing import TYPE_CHECKING

from plugconv_mm.compat.packages import plug_ins

if TYPE_CHECKING:
    from plugconv_mm.engine.metrics.faster_coco_metric import FasterCocoMetric as FasterCocoMetric

__getattr__, __dir__, __all__ = plug_ins(__name__, faster_coco_metric=['FasterCocoMetric'])
