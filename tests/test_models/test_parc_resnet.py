"""ParC-ResNet as a backbone of OpenMMLab."""
import pytest
import torch
from torch import nn

import plugconv_mm  # noqa: F401
from plugconv_mm.ops import ParCHW2d
from plugconv_mm.registry import MODELS


def build(**kwargs):
    return MODELS.build(dict(type='ParCResNet', base_channels=4) | kwargs)


def parc_per_stage(model):
    return tuple(sum(isinstance(m, ParCHW2d) for m in getattr(model, f'layer{i}').modules()) for i in range(1, 5))


@pytest.mark.parametrize('depth', [50, 101, 152])
@pytest.mark.parametrize('parc_blocks', [(0, 0, 3, 1), (2, 1, 5, 2), (0, 0, 0, 0)])
def test_the_last_blocks_are_parc(depth, parc_blocks):
    model = build(depth=depth, parc_blocks=parc_blocks)
    assert parc_per_stage(model) == parc_blocks
    for i, count in enumerate(parc_blocks, start=1):
        blocks = list(getattr(model, f'layer{i}'))
        assert [isinstance(b.conv2, ParCHW2d) for b in blocks] == [False] * (len(blocks) - count) + [True] * count
        for block in blocks[len(blocks) - count:]:
            assert block.conv2.parc_h.weight.shape[2] == (56, 28, 14, 7)[i - 1]


def test_without_parc_it_is_torchvision_resnet():
    from torchvision.models import resnet50
    torch.manual_seed(0)
    model, reference = build(base_channels=64, parc_blocks=(0, 0, 0, 0)).eval(), resnet50().eval()
    state = {k: v for k, v in reference.state_dict().items() if not k.startswith('fc.')}
    model.load_state_dict(state, strict=True)
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        y = reference.maxpool(reference.relu(reference.bn1(reference.conv1(x))))
        for i, got in enumerate(model(x), start=1):
            y = getattr(reference, f'layer{i}')(y)
            torch.testing.assert_close(got, y, rtol=1e-4, atol=1e-4)


def test_outputs_at_four_strides():
    model = build().eval()
    with torch.no_grad():
        shapes = [tuple(y.shape) for y in model(torch.randn(2, 3, 97, 131))]
        (last,) = build(out_indices=(3,)).eval()(torch.randn(1, 3, 64, 64))
    assert shapes == [(2, 16, 25, 33), (2, 32, 13, 17), (2, 64, 7, 9), (2, 128, 4, 5)]
    assert last.shape == (1, 128, 2, 2)


def test_every_parameter_learns_and_checkpointing_changes_nothing():
    torch.manual_seed(0)
    model = build(zero_init_residual=False)
    model.init_weights()
    x = torch.randn(2, 3, 64, 64)
    grads = {}
    for with_cp in (False, True):
        for m in model.modules():
            if hasattr(m, 'with_cp'):
                m.with_cp = with_cp
        model.zero_grad()
        sum(y.square().mean() for y in model(x)).backward()
        grads[with_cp] = {name: p.grad.clone() for name, p in model.named_parameters()}
    for name, grad in grads[False].items():
        assert grad.abs().sum() > 0, name
        torch.testing.assert_close(grad, grads[True][name], rtol=1e-4, atol=1e-5)


def test_residuals_start_as_the_identity():
    model = build()
    model.init_weights()
    assert all(b.bn3.weight.abs().sum() == 0 for b in model.layer3)
    model = build(zero_init_residual=False)
    model.init_weights()
    assert all((b.bn3.weight == 1).all() for b in model.layer3)


@pytest.mark.parametrize('frozen_stages', [-1, 0, 2])
def test_frozen_stages(frozen_stages):
    model = build(frozen_stages=frozen_stages).train()
    parts = [('conv1', 'bn1')] + [(f'layer{i}',) for i in range(1, 5)]
    for stage, names in enumerate(parts):
        for name in names:
            module = getattr(model, name)
            frozen = stage <= frozen_stages
            assert all(p.requires_grad != frozen for p in module.parameters())
            assert module.training != frozen


def test_norm_eval_keeps_the_statistics():
    model = build(norm_eval=True).train()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and not any(m.training for m in norms) and model.layer3.training
    before = model.bn1.running_mean.clone()
    model(torch.randn(2, 3, 64, 64))
    assert torch.equal(model.bn1.running_mean, before)


def test_norm_cfg_and_backend_reach_every_layer():
    model = build(norm_cfg=dict(type='GN', num_groups=2), parc_backend='gemm')
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert {m.backend for m in model.modules() if hasattr(m, 'meta_size')} == {'gemm'}


def test_drop_path_grows_with_depth():
    model = build(drop_path_rate=0.3)
    rates = [getattr(b.drop_path, 'p', 0.) for i in range(1, 5) for b in getattr(model, f'layer{i}')]
    assert rates == pytest.approx([0.3 * i / 15 for i in range(16)])


@pytest.mark.parametrize('arguments,says', [
    (dict(depth=18), r'depth must be one of \(50, 101, 152\), got 18'),
    (dict(parc_blocks=(0, 0, 6, 1)), r'at most \(2, 3, 5, 2\) can be ParC; got \(0, 0, 6, 1\)'),
    (dict(parc_blocks=(0, 0, 7, 1)), r'got \(0, 0, 7, 1\)'),
    (dict(parc_blocks=(3, 1)), r'got \(3, 1\)'),
    (dict(parc_blocks=(0, 0, -1, 1)), r'got \(0, 0, -1, 1\)'),
    (dict(out_indices=(0, 4)), 'out_indices must name stages 0 to 3'),
    (dict(frozen_stages=5), 'frozen_stages must be between -1 and 4'),
    (dict(base_channels=5, parc_blocks=(1, 0, 0, 0)), 'which two does not divide'),
    (dict(parc_backend='dft'), "unknown backend 'dft'"),
])
def test_bad_arguments(arguments, says):
    with pytest.raises(ValueError, match=says):
        build(**arguments)
