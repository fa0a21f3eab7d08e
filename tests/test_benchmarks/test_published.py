"""What the benchmark holds our backbones against computes the same, written differently."""
import pytest
import torch
from benchmarks.backbones import Case, build, difference, gradients

THIN = {
    'hornet': dict(type='HorNet', arch=dict(channels=[8, 16, 32, 64], depths=[1, 1, 1, 1], orders=[2, 3, 4, 5],
                                            filters=['7x7', '7x7', '7x7', 'gf'], filter_sizes=[(3, 2)] * 4)),
    'slak': dict(type='SLaK', arch=dict(channels=[4, 6, 10, 12], depths=[1, 1, 1, 1])),
    'transcnn': dict(type='TransCNN', arch=dict(channels=[8, 8, 16, 16], depths=[1, 1, 1, 1],
                                                expand_ratios=[2, 2, 2, 2]), head_width=8),
    'parc-resnet': dict(type='ParCResNet', base_channels=4),
    'parc-convnext': dict(type='ParCConvNeXt', arch=dict(channels=[4, 6, 8, 10], depths=[1, 1, 1, 1]),
                          parc_blocks=(0, 0, 1, 1)),
    'parc-mobilenetv2': dict(type='ParCMobileNetV2', widen_factor=0.25),
    'parcnet': dict(type='ParCNet', arch=dict(depths=[1, 2, 1], inner_channels=[16, 16, 16],
                                              mixer_channels=[16, 16, 16])),
    'kw-resnet': dict(type='KWResNet', depth=18, cell_num_ratio=0.25, nonlocal_basis_ratio=1 / 16),
    'kw-convnext': dict(type='KWConvNeXt', arch=dict(channels=[8, 16, 32, 64], depths=[1, 1, 1, 1])),
}


@pytest.mark.parametrize('name', THIN)
def test_the_published_form_agrees(name):
    ours, theirs = (model.double() for model in build(Case(THIN[name])))
    picture = torch.randn(2, 3, *((256, 256) if name == 'transcnn' else (64, 96)), dtype=torch.float64)
    with torch.inference_mode():
        # Their global filter and our folded kernels work in float32.
        assert difference(ours(picture), theirs(picture)) < 1e-6
    assert ours.train() is not theirs.train()
    parameters = list(ours.parameters())
    assert difference(*(gradients(model, picture, parameters) for model in (ours, theirs))) < 1e-6
