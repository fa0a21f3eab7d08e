"""Checks before an export: packages, the file to write, the size of the images, and the model."""
from pathlib import Path

import torch
from torch import nn

from plugconv_mm.atomic_write import check_target
from plugconv_mm.errors import ExportError, OutputError
from plugconv_mm.export.deformable import why_not
from plugconv_mm.export.pixels import padded_shape
from plugconv_mm.export.tasks import ExportedPart

# RoIAlign leaves as torchvision's, with what chooses its level, the attention in mmcv's own form of samples.
_LEAVING = ('MultiScaleDeformableAttention', 'RoIAlign')


def check_packages() -> None:
    """Import the packages that the export needs.

    Raises:
        ExportError: One of them is missing.
    """
    missing = []
    for name in ('onnx', 'onnxscript', 'onnxruntime'):
        try:
            __import__(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise ExportError(f'the export to ONNX needs {", ".join(missing)}: pip install {" ".join(missing)}, or all of '
                          "it with pip install 'plugconv-mm[onnx]'")


def check_torch() -> None:
    """Check the version of torch.

    Raises:
        ExportError: It is too old.
    """
    # torch.export of older versions keeps a batch of one apart, or takes an in-place sum for a change of a constant.
    if torch.__version__ < (2, 10):
        raise ExportError(f'the export needs torch 2.10 or newer, this is {torch.__version__}')


def check_destination(path: Path) -> None:
    """Check that a file can be written at a path.

    Raises:
        ExportError: Its folder does not exist, or it is a folder.
    """
    try:
        check_target(path)
    except OutputError as error:
        raise ExportError(str(error)) from error


def check_shape(model: nn.Module, shape: tuple[int, int], uint8: bool = False) -> None:
    """Check that a model is given images of this height and width when it is evaluated.

    Args:
        model: The model.
        shape: Height and width.
        uint8: Whether the images are pixels, which are padded inside the graph.

    Raises:
        ExportError: It is not a height and a width; the model pads images to other sizes, or takes windows of them.
    """
    if len(shape) != 2 or min(shape) < 1:
        raise ExportError(f'the shape of an image is a height and a width in pixels, got {tuple(shape)}')
    padded = padded_shape(model, shape)
    if padded != tuple(shape) and not uint8:
        near = ' '.join(map(str, padded))
        raise ExportError(f'this model sees an image of {shape[0]}x{shape[1]} padded to {padded[0]}x{padded[1]}: give '
                          f'--shape {near}, and pad the images likewise; or --uint8, and the file pads them')
    test_cfg = getattr(model, 'test_cfg', None) or {}
    if test_cfg.get('mode') == 'slide' and tuple(test_cfg['crop_size']) != tuple(shape):
        raise ExportError(f'this segmentor goes over the image in windows of {tuple(test_cfg["crop_size"])}, and one '
                          f'window is what is exported: give --shape {" ".join(map(str, test_cfg["crop_size"]))}, or '
                          'take whole images with --cfg-options model.test_cfg.mode=whole')


def check_model(model: nn.Module, part: ExportedPart) -> None:
    """Check types and operators of a model.

    Raises:
        ExportError: The weights are not float32, or the part to export has an operator that ONNX Runtime lacks.
    """
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise ExportError(f'the model is exported in float32, and {name} is {tensor.dtype}: call model.float()')
    for name, module in model.named_modules():
        is_exported = not part.modules or name.startswith(part.modules)
        if type(module).__module__.startswith('mmcv.ops.') and is_exported and type(module).__name__ not in _LEAVING:
            if reason := why_not(type(module)):
                raise ExportError(f'{name} is a {type(module).__name__} of mmcv, {reason}')
