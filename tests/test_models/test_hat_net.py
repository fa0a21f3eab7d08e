"""HAT-Net's norms, which differ from TransCNN's."""
import pytest
import torch
from torch import nn

pytest.importorskip('mmcv')

from plugconv_mm.models.backbones import HATNet  # noqa: E402

THIN = dict(arch=dict(depths=[1, 1, 1, 1], channels=[8, 16, 24, 32], head_widths=[8] * 4, expand_ratios=[2] * 4,
                      kernel_sizes=[3] * 4))


def count(model, kind):
    return sum(isinstance(m, kind) for m in model.modules())


def test_norms():
    """Of one group, as published; the inverted residuals have two, and another kind takes the place of every one."""
    model = HATNet(**THIN)
    norms = [m for m in model.modules() if isinstance(m, nn.GroupNorm)]
    # stem, three downsamplings, and in each block two of the convolutions and three of the attention, one without grid
    assert len(norms) == 1 + 3 + 3 * (2 + 3) + (2 + 1)
    assert {(norm.num_groups, norm.eps) for norm in norms} == {(1, 1e-6)}
    with_bn = HATNet(**THIN, norm_cfg=dict(type='BN'), norm_eval=True)
    assert count(with_bn, nn.GroupNorm) == 0 and count(with_bn, nn.BatchNorm2d) == len(norms)
    x = torch.randn(2, 3, 64, 96)
    trained = with_bn.train()(x)
    torch.testing.assert_close(with_bn.eval()(x), trained, atol=1e-4, rtol=1e-4)  # statistics stay as they are


def test_large_images_of_any_size():
    """Windows of 7 do not divide the maps of strides 8 and 16, of 224 pixels they do; all positions count alike."""
    model = HATNet(**THIN).eval()
    with torch.no_grad():
        outs = model(torch.ones(1, 3, 224, 224)), model(torch.ones(1, 3, 250, 230))
    assert [tuple(out.shape[2:]) for out in outs[1]] == [(63, 58), (32, 29), (16, 15), (8, 8)]
    assert all(out.isfinite().all() for pyramid in outs for out in pyramid)


@pytest.mark.parametrize('drop_path_rate', [0., 0.3])
def test_training_and_evaluation_agree_without_drop_path(drop_path_rate):
    torch.manual_seed(0)
    model, x = HATNet(**THIN, drop_path_rate=drop_path_rate), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        outs = model.eval()(x), model.train()(x)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(*outs, strict=True)) == (drop_path_rate == 0)
