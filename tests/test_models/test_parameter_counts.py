"""Parameters of the classifiers in the published tables, to the digit given there."""
import pytest
import torch

pytest.importorskip('mmcv')

from plugconv_mm.models.backbones import HorNet, ParCConvNeXt, ParCMobileNetV2, ParCNet, TransCNN  # noqa: E402

CLASSES = 1000


def count(build):
    with torch.device('meta'):
        model = build()
    return sum(p.numel() for name, p in model.named_parameters() if not name.startswith('norm'))


def with_norm(width):
    """A LayerNorm and a linear layer, in the place of the norms of the stages' outputs."""
    return 2 * width + (width + 1) * CLASSES


@pytest.mark.parametrize('arch, millions', [
    ('tiny-7x7', 22), ('tiny-gf', 23), ('small-7x7', 50), ('small-gf', 50), ('base-7x7', 87), ('base-gf', 88)])
def test_hornet(arch, millions):
    width = HorNet.arch_settings[arch]['channels'][-1]
    assert round((count(lambda: HorNet(arch)) + with_norm(width)) / 1e6) == millions


@pytest.mark.parametrize('parc_blocks, millions', [((0, 0, 3, 1), 7.41), ((0, 0, 0, 0), 7.44)])
def test_parc_convnext_xt(parc_blocks, millions):
    total = count(lambda: ParCConvNeXt('xt', parc_blocks)) + with_norm(384)
    assert round(total / 1e6, 2) == millions


def test_parc_mobilenetv2():
    assert round((count(ParCMobileNetV2) + 1281 * CLASSES) / 1e6, 1) == 3.5


def test_parcnet_s():
    # The classifier begins with a 1x1 from 160 to 640 channels and a batch norm.
    assert round((count(lambda: ParCNet('s')) + 160 * 640 + 2 * 640 + 641 * CLASSES) / 1e6, 1) == 5.0


@pytest.mark.parametrize('arch, millions', [('tiny', 13.3), ('small', 26.5), ('medium', 48.3), ('large', 80.0)])
def test_transcnn(arch, millions):
    width = TransCNN.arch_settings[arch]['channels'][-1]
    assert round((count(lambda: TransCNN(arch)) + (width + 1) * CLASSES) / 1e6, 1) == millions
