"""Grad-CAM: the regions of an image that raise the score of a class.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
https://arxiv.org/abs/1610.02391. The maps are computed by the package grad-cam, which is optional.
"""
import importlib.util
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from plugconv_mm.errors import ConfigError

Score = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]


class _Explained(nn.Module):
    """A model that returns the score to be explained, with a layer of its own at the backbone's last map.

    Args:
        model: A classifier, detector or segmentor.
        score: The function from the model, the inputs of its head, and the image, to one number.
    """

    def __init__(self, model: nn.Module, score: Score) -> None:
        super().__init__()
        self.model, self.score = model, score
        self.tap = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        feats = self.model.backbone(x)
        feats = [feats] if isinstance(feats, Tensor) else list(feats)
        feats[-1] = self.tap(feats[-1])
        if getattr(self.model, 'neck', None) is not None:
            feats = self.model.neck(tuple(feats))
        return self.score(self.model, tuple(feats), x).reshape(1, 1)


def grad_cam(model: nn.Module, image: Tensor, score: Score, layer: str | None = None) -> tuple[np.ndarray, float]:
    """Compute the map of Grad-CAM for a score.

    Args:
        model: A classifier, detector or segmentor with ``backbone``, ``neck`` and heads, in evaluation mode. Its
            parameters are set to need no gradients.
        image: (1, C, H, W), normalised.
        score: The score to explain, such as that of :func:`class_score`.
        layer: The name of the module whose output is weighted, such as 'backbone.layer3'; the last map of the
            backbone if None.

    Returns:
        The map (H, W) with values between 0 and 1, and the score.

    Raises:
        ConfigError: grad-cam is not installed, there is no such layer, it returns no map, or more than one.
    """
    if importlib.util.find_spec('pytorch_grad_cam') is None:
        raise ConfigError("Grad-CAM needs the package grad-cam: pip install 'plugconv-mm[analysis]', or pip install "
                          'grad-cam')
    from pytorch_grad_cam import GradCAM
    explained = _Explained(model.requires_grad_(False), score)
    if layer is None:
        target = explained.tap
    else:
        named = dict(model.named_modules())
        if layer not in named:
            near = [name for name in named if name.rpartition('.')[0] == layer.rpartition('.')[0] and name][:8]
            raise ConfigError(f'the model has no layer {layer}' + f'; beside it are {", ".join(near)}' * bool(near))
        target = named[layer]
    shapes = []
    check = target.register_forward_hook(lambda module, args, output: shapes.append(getattr(output, 'shape', ())))
    with torch.no_grad():
        value = explained(image).item()
    check.remove()
    if not shapes or len(shapes[0]) != 4:
        raise ConfigError(f'{layer or "the last output of the backbone"} '
                          + (f'is no map but of shape {tuple(shapes[0])}' if shapes else 'is not used')
                          + ': name a layer whose output is (N, C, H, W) with --layer, such as backbone.stages.3')
    if len(shapes) > 1:
        raise ConfigError(f'{layer} runs {len(shapes)} times in one pass, so that it has no one map: name a layer that '
                          'runs once with --layer')
    with GradCAM(model=explained, target_layers=[target]) as cam:
        found = cam(input_tensor=image.detach().requires_grad_(), targets=[lambda output: output[0]])[0]
    return found, value


def class_score(index: int) -> Score:
    """The logit of a class, for classifiers."""

    def score(model: nn.Module, feats: tuple[Tensor, ...], image: Tensor) -> Tensor:
        logits = model.head(feats)
        return logits[0, _checked(index, logits.shape[1])]

    return score


def region_score(index: int) -> Score:
    """The mean logit of a class, for segmentors.

    It is the mean over the pixels that the model assigns to the class, or over the image if there are none.
    """

    def score(model: nn.Module, feats: tuple[Tensor, ...], image: Tensor) -> Tensor:
        logits = model.decode_head(feats)[0]
        own, seen = logits[_checked(index, len(logits))], logits.argmax(0) == index
        return own[seen].mean() if seen.any() else own.mean()

    return score


def box_score(index: int, box: tuple[float, float, float, float]) -> Score:
    """The logit of a class for a box, for detectors.

    With two stages it is the output of the (last) box head for this box; with one stage, the highest logit of the class
    among the priors that lie in the box, on all levels.

    Args:
        index: The class.
        box: (x1, y1, x2, y2) in pixels of the image that the model is given.
    """

    def score(model: nn.Module, feats: tuple[Tensor, ...], image: Tensor) -> Tensor:
        from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
        from mmdet.models.roi_heads import CascadeRoIHead, SparseRoIHead, StandardRoIHead
        head = getattr(model, 'roi_head', None) or getattr(model, 'bbox_head', None)
        if isinstance(head, (StandardRoIHead, CascadeRoIHead)) and not isinstance(head, SparseRoIHead):
            roi = image.new_tensor([[0., *box]])
            stage = (head.num_stages - 1, ) if isinstance(head, CascadeRoIHead) else ()
            logits = head._bbox_forward(*stage, feats, roi)['cls_score'][0]
            return logits[_checked(index, len(logits) - 1)]
        if not isinstance(head, BaseDenseHead) or not hasattr(head, 'cls_out_channels'):
            raise ConfigError(f'the score that a {type(head).__name__} gives a box is not known here: the detector '
                              'should have a box head on a feature pyramid, or a standard or cascade RoI head')
        _checked(index, head.num_classes)
        return max(_inside(level[0], head.cls_out_channels, index, box, image) for level in head(feats)[0])

    return score


def _inside(scores: Tensor, num_classes: int, index: int, box: tuple[float, ...], image: Tensor) -> Tensor:
    """The highest score of a class in a box, from the scores (priors · classes, h, w) of one level."""
    height, width = scores.shape[1:]
    x1, x2 = (min(int(x * width / image.shape[3]), width - 1) for x in box[::2])
    y1, y2 = (min(int(y * height / image.shape[2]), height - 1) for y in box[1::2])
    return scores.reshape(-1, num_classes, height, width)[:, index, y1:y2 + 1, x1:x2 + 1].max()


def _checked(index: int, number: int) -> int:
    if not 0 <= index < number:
        raise ConfigError(f'there is no class {index}: the model knows {number}, from 0 to {number - 1}')
    return index
