"""Deployment forms of backbones and of whole models."""
import copy

import pytest
import torch
from torch import nn

pytest.importorskip('mmcv')

from plugconv_mm.checkpoint import convert_official  # noqa: E402
from plugconv_mm.models.backbones import ParCConvNeXt, SLaK  # noqa: E402
from plugconv_mm.ops import (  # noqa: E402
    DecomposedLargeKernelConv2d,
    LargeKernelConv2d,
    ParCHW2d,
    deploy_state_dict,
    switch_to_deploy,
)
from plugconv_mm.registry import MODELS  # noqa: E402

SLIM = dict(arch=dict(depths=[1, 1, 2, 1], channels=[8, 16, 32, 64]), kernel_size=(13, 11, 9, 5), width_factor=1)
OTHERS = {
    'HATNet': dict(arch=dict(depths=[1, 1, 1, 1], channels=[16] * 4, head_widths=[8] * 4, expand_ratios=[1] * 4,
                             kernel_sizes=[3] * 4)),
    'HorNet': dict(arch=dict(channels=[8, 16, 32, 64], depths=[1, 1, 1, 1], orders=[2, 3, 4, 5],
                             filters=['7x7', '7x7', 'gf', '7x7'], filter_sizes=[(14, 8)] * 4)),
    'KWConvNeXt': dict(arch=dict(depths=[1, 1, 1, 1], channels=[8, 16, 32, 64])),
    'KWMobileNetV2': dict(widen_factor=0.25),
    'KWResNet': dict(depth=18, cell_num_ratio=0.25),
    'ParCConvNeXt': dict(arch=dict(channels=[8, 16, 24, 32], depths=[1, 1, 1, 1]), parc_blocks=(0, 0, 1, 1)),
    'ParCMobileNetV2': dict(widen_factor=0.25),
    'ParCNet': dict(arch=dict(depths=[1, 1, 1], inner_channels=[16] * 3, mixer_channels=[16] * 3)),
    'ParCResNet': dict(base_channels=4),
    'TransCNN': dict(arch=dict(depths=[1, 1, 1, 1], channels=[64] * 4, expand_ratios=[1] * 4)),
}
IMAGE = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def trained(model):
    """`model` with statistics and weights as training leaves them, far from those of a new one."""
    generator = torch.Generator().manual_seed(0)
    for name, value in model.state_dict().items():
        if name.endswith('running_var'):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
        elif name.endswith('gamma'):
            value.fill_(1)
        elif value.is_floating_point() and value.dim() == 1:
            value.add_(torch.randn(value.shape, generator=generator) * 0.2)
    return model.eval()


@torch.no_grad()
def outputs(model):
    return model(IMAGE)


def close(got, want):
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)


def test_slak():
    model = trained(SLaK(**SLIM))
    want, before = outputs(model), dict(model.state_dict())
    model.switch_to_deploy()
    close(outputs(model), want)
    after = model.state_dict()
    assert {k: tuple(v.shape) for k, v in after.items() if 'large_kernel' in k and k.startswith('stages.2.1.')} == {
        'stages.2.1.large_kernel.vertical.weight': (32, 1, 9, 5), 'stages.2.1.large_kernel.vertical.bias': (32, ),
        'stages.2.1.large_kernel.horizontal.weight': (32, 1, 5, 9), 'stages.2.1.large_kernel.horizontal.bias': (32, )}
    others = {k for k in before if 'large_kernel' not in k}
    assert others == {k for k in after if 'large_kernel' not in k}
    assert all(torch.equal(before[k], after[k]) for k in others)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert sum(isinstance(m, nn.Conv2d) and m.groups > 1 for m in model.modules()) == 2 * 5


@pytest.mark.parametrize('small_kernel', [5, None])
def test_whole_kernels(small_kernel):
    model = trained(SLaK(**SLIM, decomposed=False, small_kernel=small_kernel))
    want, state = outputs(model), deploy_state_dict(model.state_dict())
    model.switch_to_deploy()
    close(outputs(model), want)
    torch.testing.assert_close(dict(model.state_dict()), state)
    assert {k: tuple(v.shape) for k, v in state.items() if 'large_kernel' in k and k.startswith('stages.2.1.')} == {
        'stages.2.1.large_kernel.large_conv.weight': (32, 1, 9, 9), 'stages.2.1.large_kernel.large_conv.bias': (32, )}
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    deployed = SLaK(**SLIM, decomposed=False, small_kernel=small_kernel, deploy=True).eval()
    deployed.load_state_dict(state, strict=True)
    close(outputs(deployed), want)


@pytest.mark.parametrize('decomposed', [True, False])
def test_large_kernels_of_a_convnext(decomposed):
    arguments = dict(arch=dict(channels=[8, 16, 24, 32], depths=[1, 1, 2, 1]), parc_blocks=(0, 0, 1, 0),
                     kernel_size=(13, 7, 9, 61), decomposed=decomposed)
    model = trained(ParCConvNeXt(**arguments))
    kinds = [type(block.dwconv) for stage in model.stages for block in stage]
    large = DecomposedLargeKernelConv2d if decomposed else LargeKernelConv2d
    assert kinds == [large, nn.Conv2d, large, ParCHW2d, large]
    want, state = outputs(model), deploy_state_dict(model.state_dict())
    assert convert_official(model.state_dict()).keys() == model.state_dict().keys()
    model.switch_to_deploy()
    close(outputs(model), want)
    torch.testing.assert_close(dict(model.state_dict()), state)
    assert convert_official(state).keys() == state.keys()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())


@pytest.mark.parametrize('backbone, arguments, message', [
    (ParCConvNeXt, dict(kernel_size=(7, 7, 7)), 'kernel_size gives a value for each of 4 stages, got'),
    (ParCConvNeXt, dict(kernel_size=(7, 7, 7, 8), parc_blocks=(0, ) * 4), 'kernel_size must be odd .* got 8'),
    (SLaK, dict(kernel_size=(7, 7, 8, 7), decomposed=False), 'kernel_size must be odd .* got 8'),
    (SLaK, dict(kernel_size=(7, 7, 7)), 'one size for each of the 4 stages'),
    (SLaK, dict(small_kernel=None), 'short side of decomposed kernels, got None: give it, or decomposed=False'),
])
def test_kernels_that_cannot_be(backbone, arguments, message):
    with pytest.raises(ValueError, match=message):
        backbone(**arguments)


def test_published_widths():
    """The widths and kernels of SLaK-T: 51x51 on 124 channels."""
    block = trained(SLaK('tiny').stages[0][0])
    x = torch.randn(1, 124, 20, 60)
    with torch.no_grad():
        want = block(x)
        switch_to_deploy(block)
        close(block(x), want)


@pytest.mark.parametrize('name', OTHERS)
def test_nothing_to_do(name):
    model = trained(MODELS.build(dict(type=name, **OTHERS[name])))
    want, before = outputs(model), copy.deepcopy(model.state_dict())
    model.switch_to_deploy()
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    torch.testing.assert_close(outputs(model), want, rtol=0, atol=0)


@pytest.mark.parametrize('name', [*OTHERS, 'SLaK'])
def test_the_fusion_of_mmcv_changes_nothing(name):
    """``fuse_conv_bn``, as the benchmark tools of OpenMMLab call it, goes by the order in which modules were made."""
    from mmcv.cnn import fuse_conv_bn
    model = trained(MODELS.build(dict(type=name, **(OTHERS | {'SLaK': SLIM})[name])))
    want = outputs(model)
    torch.testing.assert_close(outputs(fuse_conv_bn(model)), want, atol=1e-4, rtol=1e-4)


def test_twice_is_once():
    model = trained(SLaK(**SLIM))
    model.switch_to_deploy()
    once = copy.deepcopy(model.state_dict())
    kernel = model.stages[0][0].large_kernel.vertical
    model.switch_to_deploy()
    assert model.stages[0][0].large_kernel.vertical is kernel
    torch.testing.assert_close(model.state_dict(), once, rtol=0, atol=0)


def test_in_training_mode():
    """The running statistics are folded, whatever the mode; the mode and what is frozen stay."""
    model = trained(SLaK(**SLIM, frozen_stages=2))
    want = outputs(model)
    model.train()
    model.switch_to_deploy()
    assert model.training and model.stages[3].training and not model.stages[1].training
    close(outputs(model), want)
    sum(y.mean() for y in model(IMAGE)).backward()
    for stage, trains in enumerate((False, False, True, True)):
        for parameter in model.stages[stage].parameters():
            assert parameter.requires_grad == trains and (parameter.grad is not None) == trains


def test_in_a_whole_model():
    model = trained(nn.ModuleDict({'backbone': SLaK(**SLIM), 'neck': nn.Sequential(
        nn.Conv2d(64, 8, 1), DecomposedLargeKernelConv2d(8, 7, 3))}))
    switched = copy.deepcopy(model)
    switch_to_deploy(switched)
    with torch.no_grad():
        close(switched['neck'](switched['backbone'](IMAGE)[3]), model['neck'](model['backbone'](IMAGE)[3]))
    state = deploy_state_dict(model.state_dict())
    assert list(state) == list(switched.state_dict())
    torch.testing.assert_close(state, dict(switched.state_dict()))


def test_a_deployed_state_dict():
    model = trained(SLaK(**SLIM))
    state = deploy_state_dict(model.state_dict())
    deployed = SLaK(**SLIM, deploy=True).eval()
    deployed.load_state_dict(state, strict=True)
    close(outputs(deployed), outputs(model))
    again = deploy_state_dict(state)
    assert list(again) == list(state) and all(again[k] is state[k] for k in state)


def test_types_and_eps_of_a_state_dict():
    module = trained(DecomposedLargeKernelConv2d(4, 9, norm_layer=lambda c: nn.BatchNorm2d(c, eps=0.5)))
    deployed = copy.deepcopy(module)
    deployed.switch_to_deploy()
    torch.testing.assert_close(deploy_state_dict(module.state_dict(), eps=0.5), dict(deployed.state_dict()))
    half = deploy_state_dict(module.half().state_dict(), eps=0.5)
    assert {v.dtype for v in half.values()} == {torch.float16}
    torch.testing.assert_close(half, dict(deployed.half().state_dict()), atol=2e-3, rtol=2e-3)


def test_what_cannot_be_folded():
    with pytest.raises(ValueError, match=r"'stages\.0\.0\.large_kernel\.' .*running_mean"):
        deploy_state_dict(SLaK(**SLIM, norm_cfg=dict(type='GN', num_groups=1)).state_dict())
    with pytest.raises(ValueError, match=r"'stages\.0\.0\.large_kernel\.' .*running_mean"):
        deploy_state_dict(SLaK(**SLIM, decomposed=False, norm_cfg=dict(type='GN', num_groups=1)).state_dict())
    state = DecomposedLargeKernelConv2d(4, 9).state_dict()
    del state['small_conv.conv.weight']
    with pytest.raises(ValueError, match='small_conv'):
        deploy_state_dict(state)


@pytest.mark.parametrize('strict', [True, False])
def test_a_checkpoint_of_the_other_form_is_refused(strict):
    module, deployed = DecomposedLargeKernelConv2d(4, 9), DecomposedLargeKernelConv2d(4, 9)
    deployed.switch_to_deploy()
    with pytest.raises(ValueError, match='weights .* are deployed, and the module is not: build SLaK with deploy=True'):
        module.load_state_dict(deployed.state_dict(), strict=strict)
    with pytest.raises(ValueError, match='is deployed, and these weights are not: .*switch_to_deploy.py'):
        deployed.load_state_dict(module.state_dict(), strict=strict)
