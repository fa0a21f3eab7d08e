"""Parameters of the classifiers in the published tables, to the digit given there."""
import pytest
import torch

pytest.importorskip('mmcv')

from plugconv_mm.models.backbones import (  # noqa: E402
    HorNet,
    ParCConvNeXt,
    ParCMobileNetV2,
    ParCNet,
    ParCResNet,
    TransCNN,
)

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


# The table's figures for the large networks, 209M and 211M, are not those of a classifier of 1000 classes, which has
# 194.5M and 196.3M. A classifier of 10450 classes, as many as ImageNet-21K-P has, accounts for both to the digit; the
# backbones themselves agree with the detectors below.
@pytest.mark.parametrize('arch, millions, here', [('large-7x7', 209, 194.5), ('large-gf', 211, 196.3)])
def test_hornet_large(arch, millions, here):
    backbone = count(lambda: HorNet(arch))
    assert round((backbone + 2 * 1536 + 1537 * 10450) / 1e6) == millions
    assert round((backbone + with_norm(1536)) / 1e6, 1) == here


# Cascade Mask R-CNN of the same table: only the backbone and the laterals of the FPN differ between its rows. The large
# one with GF has weights for images of 384 pixels.
@pytest.mark.parametrize('arch, tiny, millions', [
    ('small-7x7', 'tiny-7x7', 107 - 80), ('base-7x7', 'tiny-7x7', 144 - 80), ('large-7x7', 'tiny-7x7', 251 - 80),
    ('small-gf', 'tiny-gf', 108 - 80), ('base-gf', 'tiny-gf', 146 - 80), ('large-gf-img384', 'tiny-gf', 259 - 80)])
def test_hornet_in_detectors(arch, tiny, millions):
    with_laterals = [count(lambda name=name: HorNet(name)) + 256 * sum(HorNet.arch_settings[name]['channels'])
                     for name in (arch, tiny)]
    assert abs((with_laterals[0] - with_laterals[1]) / 1e6 - millions) < 1  # two roundings


@pytest.mark.parametrize('parc_blocks, millions', [((0, 0, 3, 1), 7.41), ((0, 0, 0, 0), 7.44)])
def test_parc_convnext_xt(parc_blocks, millions):
    total = count(lambda: ParCConvNeXt('xt', parc_blocks)) + with_norm(384)
    assert round(total / 1e6, 2) == millions


def test_parc_resnet50():
    assert round((count(ParCResNet) + 2049 * CLASSES) / 1e6, 1) == 23.7


def test_parc_mobilenetv2():
    assert round((count(ParCMobileNetV2) + 1281 * CLASSES) / 1e6, 1) == 3.5


def test_parcnet_s():
    # The classifier begins with a 1x1 from 160 to 640 channels and a batch norm.
    assert round((count(lambda: ParCNet('s')) + 160 * 640 + 2 * 640 + 641 * CLASSES) / 1e6, 1) == 5.0


@pytest.mark.parametrize('arch, millions', [('tiny', 13.3), ('small', 26.5), ('medium', 48.3), ('large', 80.0)])
def test_transcnn(arch, millions):
    width = TransCNN.arch_settings[arch]['channels'][-1]
    assert round((count(lambda: TransCNN(arch)) + (width + 1) * CLASSES) / 1e6, 1) == millions
