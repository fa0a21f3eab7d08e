"""Checks before an export: packages, the file to write, the size of the images, and the model."""
from pathlib import Path

import torch
from torch import nn

from plugconv_mm.errors import ExportError
from plugconv_mm.export.tasks import ExportedPart

# RoIAlign leaves as torchvision's, with what chooses its level, the attention in mmcv's own form of samples.
_LEAVING = ('MultiScaleDeformableAttention', 'RoIAlign')
_MAX_BYTES = 2**31 - 2**24  # of a protobuf file, less a little for the graph


def check_packages() -> None:
    """Import the packages that the export needs.

    Raises:
        ExportError: One of them is missing, or torch is too old.
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
    # torch.export of older versions keeps a batch of one apart, or takes an in-place sum for a change of a constant.
    if torch.__version__ < (2, 10):
        raise ExportError(f'the export to ONNX needs torch 2.10 or newer, this is {torch.__version__}')


def check_destination(path: Path) -> None:
    """Check that a file can be written at a path.

    Raises:
        ExportError: Its folder does not exist, or it is a folder.
    """
    if not path.parent.is_dir():
        raise ExportError(f'there is no folder {path.parent} to write {path.name} into: make it first')
    if path.is_dir():
        raise ExportError(f'{path} is a folder: name a file to write')


def check_shape(model: nn.Module, shape: tuple[int, int]) -> None:
    """Check that a model is given images of this height and width when it is evaluated.

    Raises:
        ExportError: It is not a height and a width; the model pads images to other sizes, or takes windows of them.
    """
    if len(shape) != 2 or min(shape) < 1:
        raise ExportError(f'the shape of an image is a height and a width in pixels, got {tuple(shape)}')
    preprocessor = getattr(model, 'data_preprocessor', None)
    divisor = getattr(preprocessor, 'pad_size_divisor', None) or (
        getattr(preprocessor, 'test_cfg', None) or {}).get('size_divisor') or 1
    if any(side % divisor for side in shape):
        near = ' '.join(str(-(-side // divisor) * divisor) for side in shape)
        raise ExportError(f'this model sees images padded to multiples of {divisor} only, and never one of '
                          f'{shape[0]}x{shape[1]}: give --shape {near}, and pad the images likewise')
    test_cfg = getattr(model, 'test_cfg', None) or {}
    if test_cfg.get('mode') == 'slide' and tuple(test_cfg['crop_size']) != tuple(shape):
        raise ExportError(f'this segmentor goes over the image in windows of {tuple(test_cfg["crop_size"])}, and one '
                          f'window is what is exported: give --shape {" ".join(map(str, test_cfg["crop_size"]))}, or '
                          'take whole images with --cfg-options model.test_cfg.mode=whole')


def check_model(model: nn.Module, part: ExportedPart) -> None:
    """Check types, size and operators of a model.

    Raises:
        ExportError: The weights are not float32 or too large for a file, or the part to export has an operator that
            ONNX Runtime lacks.
    """
    size = 0
    for name, tensor in model.state_dict().items():
        size += tensor.numel() * tensor.element_size()
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise ExportError(f'the model is exported in float32, and {name} is {tensor.dtype}: call model.float()')
    if size > _MAX_BYTES:
        raise ExportError(f'the weights take {size / 2**30:.1f} GB, and an ONNX file holds at most 2')
    for name, module in model.named_modules():
        is_exported = not part.modules or name.startswith(part.modules)
        if type(module).__module__.startswith('mmcv.ops.') and is_exported and type(module).__name__ not in _LEAVING:
            raise ExportError(f'{name} is a {type(module).__name__} of mmcv, an operator that ONNX Runtime lacks')
