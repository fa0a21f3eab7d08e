"""Test-time augmentation of detectors that predict masks as well."""
from mmdet.models import DetTTAModel
from mmdet.structures import DetDataSample

from plugconv_mm.registry import MODELS


@MODELS.register_module()
class BoxTTAModel(DetTTAModel):
    """mmdet's ``DetTTAModel``, which merges boxes alone, for detectors with masks: these are left out.

    Args:
        tta_cfg: ``nms``, which merges the boxes of all views, and ``max_per_img``.
        module: The detector.
    """

    def merge_preds(self, data_samples_list: list[list[DetDataSample]]) -> list[DetDataSample]:
        """Merge the boxes of the views of each image."""
        for views in data_samples_list:
            for sample in views:
                sample.pred_instances.pop('masks', None)
        return super().merge_preds(data_samples_list)
