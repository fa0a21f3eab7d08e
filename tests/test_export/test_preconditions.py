"""Models, sizes and packages that are refused before the export."""
import re
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.torch_version import TorchVersion

for name in ('onnx', 'onnxruntime', 'onnxscript', 'mmdet', 'mmseg', 'mmpretrain'):
    pytest.importorskip(name)

from mmengine.config import Config  # noqa: E402
from small_models import small_model  # noqa: E402

from plugconv_mm.compat import bridge  # noqa: E402
from plugconv_mm.errors import ExportError  # noqa: E402
from plugconv_mm.export import export_onnx, onnx_file, preconditions  # noqa: E402


def refuses(model, size, says, tmp_path, monkeypatch):
    """Before the export, and nothing is written."""
    monkeypatch.setattr(onnx_file, 'to_onnx', lambda *args: pytest.fail('it went as far as the export'))
    with pytest.raises(ExportError, match=says):
        export_onnx(model, tmp_path / 'x.onnx', size)
    assert not list(tmp_path.iterdir())


def test_sizes_are_checked_first(tmp_path, monkeypatch):
    refuses(nn.Conv2d(3, 4, 1), (0, 4), r'a height and a width in pixels, got \(0, 4\)', tmp_path, monkeypatch)
    refuses(nn.Conv2d(3, 4, 5), (3, 9), 'Conv2d does not take images of 3x9', tmp_path, monkeypatch)
    refuses(small_model('detector'), (70, 96), 'padded to 96x96: give --shape 96 96.*or --uint8', tmp_path, monkeypatch)
    model = small_model('segmentor')
    model.test_cfg = Config(dict(mode='slide', crop_size=(32, 64), stride=(16, 16)))
    refuses(model, (64, 96), r'windows of \(32, 64\).*--shape 32 64', tmp_path, monkeypatch)


def test_options_are_checked_first(tmp_path, monkeypatch):
    refuses(nn.Conv2d(3, 4, 1).double(), (8, 8), 'exported in float32, and weight is torch.float64', tmp_path,
            monkeypatch)
    from mmcv.ops import CARAFEPack
    refuses(nn.Sequential(CARAFEPack(3, 2)), (8, 8), '0 is a CARAFEPack of mmcv, an operator that ONNX Runtime lacks',
            tmp_path, monkeypatch)


def test_deformable_convolutions(tmp_path, monkeypatch):
    """Torchvision's pass, and mmcv's compiled ones, which are other kernels than those that are compared, do not."""
    from mmcv.ops import DeformConv2d, ModulatedDeformConv2dPack
    model, part = nn.Sequential(DeformConv2d(3, 4, 1), ModulatedDeformConv2dPack(4, 4, 1)), SimpleNamespace(modules=())
    preconditions.check_model(model, part)
    monkeypatch.setattr(bridge, 'in_use', lambda: 'mmcv')
    with pytest.raises(ExportError, match='0 is a DeformConv2d of mmcv, compiled: with PLUGCONV_MMCV_OPS=torchvision'):
        preconditions.check_model(model, part)


def test_torch_is_too_old(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, '__version__', TorchVersion('2.9.1+cu128'))
    refuses(nn.Conv2d(3, 4, 1), (8, 8), r'needs torch 2.10 or newer, this is 2.9.1\+cu128', tmp_path, monkeypatch)


def test_missing_folder_or_package(tmp_path, monkeypatch):
    with pytest.raises(ExportError, match='there is no folder .*none to write x.onnx into'):
        export_onnx(nn.Conv2d(3, 4, 1), tmp_path / 'none/x.onnx', (8, 8))
    for name in ('onnxruntime', 'onnxscript'):
        monkeypatch.setitem(sys.modules, name, None)
    says = re.escape("needs onnxscript, onnxruntime: pip install onnxscript onnxruntime, or all of it with pip install "
                     "'plugconv-mm[onnx]'")
    refuses(nn.Conv2d(3, 4, 1), (8, 8), says, tmp_path, monkeypatch)
