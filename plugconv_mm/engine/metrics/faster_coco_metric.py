"""COCO's figures by faster-coco-eval."""
from typing import Any

from mmdet.evaluation.metrics import CocoMetric, coco_metric

from plugconv_mm.compat.replaced import replaced
from plugconv_mm.errors import MissingPackageError
from plugconv_mm.registry import METRICS


@METRICS.register_module()
class FasterCocoMetric(CocoMetric):
    """mmdet's ``CocoMetric``, whose figures faster-coco-eval computes, in C++ and to the same digits.

    In a config it takes the place of ``CocoMetric`` in ``val_evaluator`` and ``test_evaluator``; ``tools/test.py
    --faster-coco`` puts it there.

    Args:
        *args: Those of ``CocoMetric``.
        **kwargs: Those of ``CocoMetric``; ``use_mp_eval`` changes nothing.

    Raises:
        MissingPackageError: If faster-coco-eval is not installed.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        try:
            from faster_coco_eval import COCOeval_faster
        except ImportError as error:
            raise MissingPackageError('FasterCocoMetric needs faster-coco-eval, which is not installed. Install it '
                                      'with `pip install faster-coco-eval`, or evaluate with CocoMetric.',
                                      name='faster_coco_eval') from error
        self._evaluation = COCOeval_faster

    def compute_metrics(self, results: list) -> dict[str, float]:
        """COCO's figures of the results that ``process`` has gathered."""
        with replaced([(coco_metric, name, self._of_type) for name in ('COCOeval', 'COCOevalMP')]):
            return super().compute_metrics(results)

    def _of_type(self, annotations: Any, predictions: Any, iou_type: str) -> Any:
        return self._evaluation(annotations, predictions, iou_type, print_function=print)
