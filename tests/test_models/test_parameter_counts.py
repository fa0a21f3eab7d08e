"""Published figures of large HorNets, and parameters of recorded backbones.

The classifiers of ImageNet-1K are in tests/test_configs/test_parameters.py.
"""
import pytest
import recorded
import torch

pytest.importorskip('mmcv')

from plugconv_mm.models.backbones import HorNet, KWResNet, SLaK  # noqa: E402

HALVES = dict(cell_inplane_ratio=0.5, cell_outplane_ratio=0.5)


def count(build):
    with torch.device('meta'):
        model = build()
    return sum(p.numel() for p in model.parameters())


# The table's figures for the large networks are not those of a classifier of 1000 classes, which has 194.5M, 196.3M and
# 201.8M. A classifier of 10450 classes, as many as ImageNet-21K-P has, accounts for all to the digit; the backbones
# themselves agree with the detectors below.
@pytest.mark.parametrize('arch, millions, here', [
    ('large-7x7', 209, 194.5), ('large-gf', 211, 196.3), ('large-gf-img384', 216, 201.8)])
def test_hornet_large(arch, millions, here):
    backbone = count(lambda: HorNet(arch, out_indices=(3, )))  # its last norm is the classifier's
    assert round((backbone + 1537 * 10450) / 1e6) == millions
    assert round((backbone + 1537 * 1000) / 1e6, 1) == here


# Cascade Mask R-CNN of the same table: only the backbone and the laterals of the FPN differ between its rows. The large
# one with GF has weights for images of 384 pixels.
@pytest.mark.parametrize('arch, tiny, millions', [
    ('small-7x7', 'tiny-7x7', 107 - 80), ('base-7x7', 'tiny-7x7', 144 - 80), ('large-7x7', 'tiny-7x7', 251 - 80),
    ('small-gf', 'tiny-gf', 108 - 80), ('base-gf', 'tiny-gf', 146 - 80), ('large-gf-img384', 'tiny-gf', 259 - 80)])
def test_hornet_in_detectors(arch, tiny, millions):
    with_laterals = [count(lambda name=name: HorNet(name)) + 256 * sum(HorNet.arch_settings[name]['channels'])
                     for name in (arch, tiny)]
    assert abs((with_laterals[0] - with_laterals[1]) / 1e6 - millions) < 1  # two roundings


@pytest.mark.parametrize('name, build', [
    ('slak_tiny', lambda: SLaK('tiny')),
    ('kw_resnet18_1d4x', lambda: KWResNet(18, cell_num_ratio=0.25, **HALVES)),
    ('kw_resnet50_1d2x', lambda: KWResNet(50, cell_num_ratio=0.5, nonlocal_basis_ratio=1 / 16, **HALVES))])
def test_records(name, build):
    assert count(build) == recorded.load(name)['params']
