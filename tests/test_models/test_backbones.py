"""Every backbone under one set of checks: thin variants of each are run, every named architecture is traced."""
import copy
import io
import math
import pickle
import shutil

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.ops import StochasticDepth

pytest.importorskip('mmcv')

from plugconv_mm.models import backbones  # noqa: E402
from plugconv_mm.registry import MODELS  # noqa: E402

HALVES = dict(cell_inplane_ratio=0.5, cell_outplane_ratio=0.5)
HORNET = dict(channels=[8, 16, 32, 64], depths=[1, 1, 2, 1], orders=[2, 3, 4, 5], filters=['7x7'] * 4,
              filter_sizes=[(14, 8)] * 4)
CONVNEXT = dict(channels=[8, 16, 24, 32], depths=[1, 1, 2, 1])

# Small networks that together go through every line of the backbones. Layer scale starts at one, so that the blocks
# count; batch norms train.
VARIANTS = {
    'hornet-7x7': dict(type='HorNet', arch=HORNET, layer_scale_init=1.),
    'hornet-gf': dict(
        type='HorNet', layer_scale_init=1.,
        arch=HORNET | dict(filters=['7x7', '7x7', 'gf', 'gf'], filter_sizes=[(14, 8)] * 3 + [(7, 4)])),
    'hornet-mixers': dict(
        type='HorNet', layer_scale_init=1.,
        arch=HORNET | dict(filters=['k21', dict(type='DecomposedLargeKernelConv2d', kernel_size=21),
                                    dict(type='ParCHW2d', meta_size=7), dict(type='ParC2d', direction='W')])),
    'parc-resnet': dict(type='ParCResNet', base_channels=8),
    'parc-mobilenetv2': dict(type='ParCMobileNetV2', widen_factor=0.25),
    'parc-convnext': dict(type='ParCConvNeXt', arch=CONVNEXT, parc_blocks=(0, 0, 1, 1), layer_scale_init=1.),
    'convnext': dict(type='ParCConvNeXt', arch=CONVNEXT, parc_blocks=(0, 0, 0, 0), layer_scale_init=1.),
    'convnext-large': dict(type='ParCConvNeXt', arch=CONVNEXT, parc_blocks=(0, 0, 1, 0), layer_scale_init=1.,
                           kernel_size=(31, 21, 13, 7), small_kernel=5),
    'parcnet': dict(
        type='ParCNet', arch=dict(depths=[2, 1, 1], inner_channels=[16, 16, 32], mixer_channels=[24, 16, 16])),
    'slak': dict(type='SLaK', arch=CONVNEXT, kernel_size=(31, 29, 13, 5), layer_scale_init=1.),
    'slak-deployed': dict(type='SLaK', arch=CONVNEXT, kernel_size=(31, 29, 13, 5, 3), layer_scale_init=1., deploy=True),
    'slak-whole': dict(type='SLaK', arch=CONVNEXT, kernel_size=(31, 29, 13, 5), decomposed=False, layer_scale_init=1.),
    'kw-resnet18': dict(type='KWResNet', depth=18, cell_num_ratio=0.25, norm_eval=False, **HALVES),
    'kw-resnet50': dict(type='KWResNet', depth=50, cell_num_ratio=0.125, nonlocal_basis_ratio=1 / 16, norm_eval=False,
                        **HALVES),
    'kw-mobilenetv2': dict(type='KWMobileNetV2', widen_factor=0.25, norm_eval=False),
    'kw-mobilenetv2-half': dict(type='KWMobileNetV2', widen_factor=0.25, cell_num_ratio=0.5, norm_eval=False),
    'kw-convnext': dict(
        type='KWConvNeXt', arch=dict(channels=[16, 32, 64, 128], depths=[1, 1, 2, 1]), layer_scale_init=1.),
    'transcnn': dict(
        type='TransCNN', head_width=8,
        arch=dict(depths=[1, 1, 2, 1], channels=[8, 16, 24, 32], expand_ratios=[2, 2, 3, 3])),
    'hat-net': dict(
        type='HATNet', arch=dict(depths=[1, 1, 2, 1], channels=[8, 16, 24, 32], head_widths=[4, 8, 8, 8],
                                 expand_ratios=[2, 2, 3, 3], kernel_sizes=[5, 3, 5, 3])),
}
CHANNELS = {
    'hornet-7x7': (8, 16, 32, 64), 'hornet-gf': (8, 16, 32, 64),
    'hornet-mixers': (8, 16, 32, 64), 'parc-resnet': (32, 64, 128, 256),
    'parc-mobilenetv2': (8, 8, 24, 1280), 'parc-convnext': (8, 16, 24, 32), 'convnext': (8, 16, 24, 32),
    'convnext-large': (8, 16, 24, 32),
    'parcnet': (64, 96, 128, 160), 'slak': (10, 20, 31, 41), 'slak-deployed': (10, 20, 31, 41),
    'slak-whole': (10, 20, 31, 41),
    'kw-resnet18': (64, 128, 256, 512), 'kw-resnet50': (256, 512, 1024, 2048), 'kw-mobilenetv2': (8, 8, 24, 1280),
    'kw-mobilenetv2-half': (8, 8, 24, 1280), 'kw-convnext': (16, 32, 64, 128), 'transcnn': (8, 16, 24, 32),
    'hat-net': (8, 16, 24, 32),
}
# Patches of 4×4 and 2×2 drop what is left at the border, and layer scale keeps the sum of the blocks in float32.
CONVNEXTS = ('HorNet', 'ParCConvNeXt', 'SLaK', 'KWConvNeXt')
# Some seconds a pass, and made of what others are made of.
HEAVY = 'kw-resnet50'
# One variant of each backbone, for checks of arguments.
ONE_OF_EACH = {cfg['type']: name for name, cfg in VARIANTS.items() if name != HEAVY}

NAMED = [
    *[(dict(type='HorNet', arch=f'{size}-{kind}'), [width * 2**i for i in range(4)])
      for size, width in (('tiny', 64), ('small', 96), ('base', 128), ('large', 192))
      for kind in ('7x7', 'gf', 'gf-img384')],
    *[(dict(type='ParCResNet', depth=depth), [256, 512, 1024, 2048]) for depth in (50, 101, 152)],
    (dict(type='ParCMobileNetV2'), [24, 32, 96, 1280]),
    (dict(type='ParCConvNeXt', arch='xt'), [48, 96, 192, 384]),
    (dict(type='ParCConvNeXt', arch='tiny'), [96, 192, 384, 768]),
    (dict(type='ParCConvNeXt', arch='tiny', parc_blocks=(0, 0, 0, 0)), [96, 192, 384, 768]),
    *[(dict(type='ParCNet', arch=arch), [64, 96, 128, 160]) for arch in ('s', 'xs')],
    *[(dict(type='SLaK', arch=arch), [124, 249, 499, 998]) for arch in ('tiny', 'small')],
    (dict(type='SLaK', arch='base'), [166, 332, 665, 1331]),
    (dict(type='SLaK', arch='tiny', kernel_size=(61, 59, 57, 15, 7), width_factor=1.), [96, 192, 384, 768]),
    (dict(type='SLaK', arch='tiny', kernel_size=(7, 7, 7, 7, 100), decomposed=False, width_factor=1.),
     [96, 192, 384, 768]),
    *[(dict(type='KWResNet', depth=depth), [64, 128, 256, 512]) for depth in (18, 34)],
    *[(dict(type='KWResNet', depth=depth), [256, 512, 1024, 2048]) for depth in (50, 101)],
    (dict(type='KWResNet', depth=18, cell_num_ratio=0.25, **HALVES), [64, 128, 256, 512]),
    (dict(type='KWResNet', depth=50, cell_num_ratio=4), [256, 512, 1024, 2048]),
    *[(dict(type='KWMobileNetV2', widen_factor=1., cell_num_ratio=ratio), [24, 32, 96, 1280]) for ratio in (0.5, 1, 4)],
    *[(dict(type='KWMobileNetV2', widen_factor=0.5, cell_num_ratio=ratio), [16, 16, 48, 1280])
      for ratio in (0.5, 1, 4)],
    (dict(type='KWConvNeXt', arch='tiny'), [96, 192, 384, 768]),
    *[(dict(type='TransCNN', arch=arch), [64, 128, *last])
      for arch, last in (('tiny', (256, 512)), ('small', (256, 512)), ('medium', (320, 640)), ('large', (384, 768)))],
    (dict(type='HATNet', arch='tiny'), [48, 96, 240, 384]),
    *[(dict(type='HATNet', arch=arch), [64, 128, 320, last])
      for arch, last in (('small', 512), ('medium', 512), ('large', 640))],
]

every_variant = pytest.mark.parametrize('name', VARIANTS)
every_light_variant = pytest.mark.parametrize(
    'name', [pytest.param(name, marks=[pytest.mark.slow] if name == HEAVY else []) for name in VARIANTS])
every_backbone = pytest.mark.parametrize('name', ONE_OF_EACH.values())


def build(name, **kwargs):
    """The variant with random weights, among them those that start as zeros or ones, and random statistics."""
    torch.manual_seed(0)
    model = MODELS.build(VARIANTS[name] | kwargs)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() < 2:
                p.add_(0.1 * torch.randn_like(p))
        for norm in batch_norms(model):
            norm.running_mean.normal_(std=0.1)
            norm.running_var.uniform_(0.8, 1.2)
    return model


def image(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch_norms(model):
    return [m for m in model.modules() if isinstance(m, _BatchNorm)]


def statistics(model):
    return {name: value.clone() for name, value in model.named_buffers() if 'running' in name or 'num_batches' in name}


def run(model, x):
    with torch.no_grad():
        return model(x)


def train_step(model, x):
    """The outputs and all gradients."""
    model.train().zero_grad()
    outs = model(x)
    # A projection of each map to one number: of a normalised map the sum of squares would be a constant.
    sum((out.float() * image(*out.shape, seed=i)).mean() for i, out in enumerate(outs)).backward()
    return outs, {key: p.grad for key, p in model.named_parameters()}


def assert_near(outs, expected, tolerance=1e-4):
    """Equal up to `tolerance` deviations of the expected values."""
    assert len(outs) == len(expected)
    for got, want in zip(outs, expected, strict=True):
        assert got.shape == want.shape
        error = (got.float() - want.float()).abs().max() / want.float().std()
        assert error < tolerance


def test_all_that_is_registered_is_swept():
    assert set(ONE_OF_EACH) == set(backbones.__all__)
    for kind in backbones.__all__:
        cls = getattr(backbones, kind)
        known = cls.arch_settings or getattr(cls, 'depths', {})
        if isinstance(known, dict):
            assert set(known) == {cfg.get('arch', cfg.get('depth')) for cfg, _ in NAMED if cfg['type'] == kind} - {None}


@pytest.mark.parametrize('cfg,channels', NAMED, ids=['-'.join(map(str, cfg.values())) for cfg, _ in NAMED])
def test_named_architectures(cfg, channels):
    """Built and run without memory; outputs at strides 4, 8, 16 and 32."""
    with torch.device('meta'):
        model = MODELS.build(cfg)
        for training in (True, False):
            outs = model.train(training)(torch.empty(2, 3, 128, 160))
            assert [tuple(out.shape) for out in outs] == [
                (2, c, 128 // stride, 160 // stride) for c, stride in zip(channels, (4, 8, 16, 32), strict=True)]


@every_variant
@pytest.mark.parametrize('size', [(64, 96), (97, 131)], ids=lambda size: 'x'.join(map(str, size)))
def test_shapes(name, size):
    divide = math.floor if VARIANTS[name]['type'] in CONVNEXTS else math.ceil
    outs = run(build(name).eval(), image(2, 3, *size))
    assert [tuple(out.shape) for out in outs] == [
        (2, c, *(divide(side / stride) for side in size))
        for c, stride in zip(CHANNELS[name], (4, 8, 16, 32), strict=True)]
    assert all(out.isfinite().all() for out in outs)


@every_variant
def test_no_weight_is_left_to_chance(name):
    torch.use_deterministic_algorithms(True)  # fills memory that is not initialised with NaN
    try:
        model = MODELS.build(VARIANTS[name])
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(value.isfinite().all() for value in model.state_dict().values())


@every_variant
def test_evaluation_is_deterministic_and_blind_to_the_batch(name):
    model, x = build(name).eval(), image(2, 3, 64, 96)
    outs = run(model, x)
    assert all(map(torch.equal, outs, run(model, x)))
    singles = [run(model, part) for part in x.split(1)]
    assert_near(outs, [torch.cat(parts) for parts in zip(*singles, strict=True)])


# What PyTorch has no deterministic form of on CUDA, of the kind that networks are made of; interpolate() has another
# way for bilinear upsampling.
RANDOM_ON_CUDA = {'_adaptive_avg_pool2d_backward', 'adaptive_max_pool2d_backward', 'max_unpool2d', 'nll_loss2d_forward',
                  'upsample_linear1d_backward', 'upsample_bicubic2d_backward', 'reflection_pad2d_backward',
                  'grid_sampler_2d_backward', 'cumsum', 'put_', 'bincount', 'histc', 'embedding_bag'}


class Operations(TorchDispatchMode):
    """Names of the operations that ran, and the types of their first operands."""

    def __init__(self):
        super().__init__()
        self.types = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.types.add((function.overloadpacket.__name__, getattr(args[0], 'dtype', None) if args else None))
        return function(*args, **(kwargs or {}))


@every_light_variant
def test_training_is_deterministic(name):
    """To the bit on a CPU, and of operations that can be so on CUDA."""
    x, results = image(2, 3, 97, 131), []
    torch.use_deterministic_algorithms(True)
    try:
        for _ in range(2):
            model = build(name, drop_path_rate=0.2)
            with Operations() as operations:
                results.append((*train_step(model, x), statistics(model)))
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(*results, rtol=0, atol=0)
    names = {key for key, _ in operations.types}
    assert 'convolution_backward' in names and not names & RANDOM_ON_CUDA


@every_variant
def test_every_parameter_learns(name):
    _, grads = train_step(build(name), image(2, 3, 64, 96))
    assert [key for key, grad in grads.items() if grad is None or not grad.any() or not grad.isfinite().all()] == []


@every_variant
def test_a_single_image_trains(name):
    outs, grads = train_step(build(name), image(1, 3, 64, 64))
    assert all(out.isfinite().all() for out in outs)
    assert all(grad.isfinite().all() for grad in grads.values())


@every_light_variant
def test_autocast(name):
    model, x = build(name), image(2, 3, 64, 96)
    expected = run(model.eval(), x)
    with torch.autocast('cpu', torch.bfloat16):
        outs = run(model, x)
    # In a context of its own: older torch keeps the casts of a pass without gradients until the context ends.
    with torch.autocast('cpu', torch.bfloat16):
        _, grads = train_step(model, x)
    assert {out.dtype for out in outs} == {torch.float32 if VARIANTS[name]['type'] in CONVNEXTS else torch.bfloat16}
    for out, want in zip(outs, expected, strict=True):
        assert (out.float() - want).norm() < 0.05 * want.norm()
    assert all(grad.dtype == torch.float32 and grad.isfinite().all() for grad in grads.values())


@every_light_variant
def test_gradients_under_autocast(name):
    """Near those of float32, and Fourier transforms compute in float32.

    With running statistics: those of two images with six positions each turn rounding errors into anything.
    """
    x = image(2, 3, 64, 96)
    _, expected = train_step(build(name, norm_eval=True), x)
    with torch.autocast('cpu', torch.bfloat16), Operations() as operations:
        _, grads = train_step(build(name, norm_eval=True), x)
    got, want = (torch.cat([grad.flatten() for grad in g.values()]) for g in (grads, expected))
    assert (got - want).norm() < 0.1 * want.norm()
    transforms = {dtype for key, dtype in operations.types if key.startswith('_fft')}
    assert transforms <= {torch.float32, torch.complex64} and (transforms or name not in ('hornet-gf', 'parc-resnet'))


def test_slak_learns_in_half_precision():
    """A gamma of 1e-6 times a weight of 0.02 is nothing in float16, and the block behind it would not learn."""
    x, results = image(2, 3, 64, 96), []
    for enabled in (False, True):
        torch.manual_seed(0)
        model = MODELS.build(dict(type='SLaK', arch=CONVNEXT, kernel_size=(31, 29, 13, 5)))
        model.init_weights()
        with torch.autocast('cpu', torch.float16, enabled=enabled):
            outs = model(x)
        (2.**10 * sum((out * image(*out.shape, seed=i)).sum() for i, out in enumerate(outs))).backward()
        results.append(dict(model.stages.named_parameters()))
    for key, p in results[0].items():
        assert (results[1][key].grad - p.grad).norm() < 0.05 * p.grad.norm()


@every_variant
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float64], ids=str)
def test_other_types(name, dtype):
    model, x = build(name).eval(), image(1, 3, 64, 96)
    expected = run(model, x)
    outs = run(model.to(dtype), x.to(dtype))
    assert {out.dtype for out in outs} == {dtype}
    for out, want in zip(outs, expected, strict=True):
        assert (out - want).norm() < (0.1 if dtype == torch.bfloat16 else 1e-5) * want.norm()


@every_backbone
def test_half_precision_by_name(name):
    """No attribute of ours hides a method of ``nn.Module``."""
    model = build(name)
    assert model.half() is model and {p.dtype for p in model.parameters()} == {torch.float16}


@every_variant
def test_channels_last(name):
    model, x = build(name).double().eval(), image(2, 3, 64, 96).double()
    expected = run(model, x)
    model, x = (t.to(memory_format=torch.channels_last) for t in (model, x))
    assert_near(run(model, x), expected, tolerance=1e-9)


@every_light_variant
def test_recomputing_blocks_changes_nothing_but_the_memory(name):
    x, results, saved = image(2, 3, 64, 96), [], []
    for with_cp in (False, True):
        model, sizes = build(name, with_cp=with_cp, drop_path_rate=0.2), []

        def count(tensor, sizes=sizes):
            sizes.append(tensor.numel())
            return tensor

        torch.manual_seed(3)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            outs, grads = train_step(model, x)
        results.append((outs, grads, statistics(model)))
        saved.append(sum(sizes))
    torch.testing.assert_close(*results)
    assert saved[1] < saved[0]


@every_variant
@pytest.mark.parametrize('frozen_stages', [0, 2, 4])
def test_frozen_stages(name, frozen_stages):
    x = image(2, 3, 64, 96)
    model = build(name).eval()
    # What the features of the frozen stages depend on; for the stem, what those of the first stage do.
    needed = torch.autograd.grad(sum(out.sum() for out in model(x)[:max(frozen_stages, 1)]), model.parameters(),
                                 allow_unused=True)
    needed = {key for (key, _), grad in zip(model.named_parameters(), needed, strict=True) if grad is not None}

    model = build(name, frozen_stages=frozen_stages, drop_path_rate=0.5)
    expected, before = run(model.eval(), x), statistics(model)
    outs, grads = train_step(model, x) if frozen_stages < 4 else (model.train()(x), {})
    frozen = {key for key, p in model.named_parameters() if not p.requires_grad}
    # Without stochastic depth and the statistics of the batch; not quite equal, as inference may take another way.
    assert_near(outs[:frozen_stages], expected[:frozen_stages])
    assert {key for key, grad in grads.items() if grad is None} == (frozen if grads else set())
    if frozen_stages == 4:
        assert frozen == set(dict(model.named_parameters()))
    elif frozen_stages == 0:
        assert frozen and frozen < needed
    else:
        # Warehouses train on where a later stage draws from them.
        shared = {key for key in needed if key.startswith('warehouse_manager.')}
        assert frozen | shared == needed
    for key, value in statistics(model).items():
        assert torch.equal(value, before[key]) == (f'{key.rpartition(".")[0]}.weight' in frozen)


@pytest.mark.parametrize('name', [name for name, cfg in VARIANTS.items() if cfg['type'].startswith('KW')])
@pytest.mark.parametrize('frozen_stages', [0, 1, 2, 3, 4])
def test_frozen_stages_of_warehouses(name, frozen_stages):
    """Cells train exactly where a layer that trains draws from them."""
    model = build(name, frozen_stages=frozen_stages)
    layers = [m for m in model.modules() if hasattr(m, 'warehouse_index')]
    used = {m.warehouse_index for m in layers if m.attention.fc1.weight.requires_grad}
    assert {i for i, cells in enumerate(model.warehouse_manager.weights) if cells.requires_grad} == used


@every_variant
def test_norm_eval(name):
    model, x = build(name, norm_eval=True), image(2, 3, 64, 96)
    expected, before = run(model.eval(), x), statistics(model)
    outs, grads = train_step(model, x)
    assert_near(outs, expected)
    assert model.training and all(grad is not None for grad in grads.values())
    torch.testing.assert_close(statistics(model), before, rtol=0, atol=0)


@pytest.mark.parametrize('name', ['parc-resnet', 'parc-mobilenetv2', 'parcnet', 'slak', 'kw-resnet18',
                                  'kw-mobilenetv2', 'transcnn'])
def test_other_norms(name):
    """Another norm takes the place of every batch norm of maps, and is not folded into a convolution."""
    model, x = build(name, norm_cfg=dict(type='GN', num_groups=1), norm_eval=True), image(2, 3, 64, 96)
    counts = [[sum(isinstance(m, norm) for m in net.modules()) for norm in (nn.BatchNorm2d, nn.GroupNorm)]
              for net in (model, build(name))]
    assert counts[0] == [0, sum(counts[1])] and counts[1][0]
    outs, grads = train_step(model, x)
    assert all(grad is not None for grad in grads.values())
    assert_near(run(model.eval(), x), outs)  # without statistics, training and evaluation agree


@every_variant
def test_state_dict_round_trip(name):
    x, file = image(1, 3, 64, 96), io.BytesIO()
    model, other = build(name).eval(), build(name).eval()
    torch.save(model.state_dict(), file)
    file.seek(0)
    with torch.no_grad():
        for value in other.state_dict().values():
            value.zero_()
    other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    assert all(map(torch.equal, run(model, x), run(other, x)))


@every_variant
@pytest.mark.parametrize('copied', [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
                         ids=['deepcopy', 'pickle'])
def test_copies_are_equal_and_independent(name, copied):
    model, x = build(name).eval(), image(1, 3, 64, 96)
    expected = run(model, x)
    twin = copied(model)
    assert all(map(torch.equal, run(twin, x), expected))
    # Each layer of the twin uses the twin's own weights.
    with torch.no_grad():
        for p in twin.parameters():
            p.mul_(1.25)
    assert all(map(torch.equal, run(model, x), expected))
    model.load_state_dict(twin.state_dict())
    assert all(map(torch.equal, run(model, x), run(twin, x)))


@every_light_variant
def test_stochastic_depth(name):
    x = image(2, 3, 64, 96)
    model = build(name, drop_path_rate=0.5)
    rates = [m.p for m in model.modules() if isinstance(m, StochasticDepth)]
    if VARIANTS[name]['type'] == 'KWResNet':  # as published
        assert set(rates) == {0.5}
    else:  # the first block, with a rate of 0, has none
        assert rates == pytest.approx([0.5 * i / len(rates) for i in range(1, len(rates) + 1)])
    assert all(map(torch.equal, run(model.eval(), x), run(build(name).eval(), x)))
    outs, grads = train_step(model, x)
    again = [train_step(model, x)[0] for _ in range(3)]  # of which one may drop the same branches
    assert not all(torch.equal(outs[3], other[3]) for other in again)
    assert all(grad.isfinite().all() for grad in grads.values())


@every_backbone
@pytest.mark.parametrize('out_indices', [(3, ), (0, 2), [1]], ids=str)
def test_out_indices(name, out_indices):
    model, part = build(name).eval(), build(name, out_indices=out_indices).eval()
    part.load_state_dict({key: value for key, value in model.state_dict().items() if key in part.state_dict()})
    x = image(1, 3, 64, 96)
    expected = run(model, x)
    assert all(map(torch.equal, run(part, x), [expected[i] for i in out_indices]))


@every_backbone
def test_channels_of_the_image(name):
    model = build(name, in_channels=5).eval()
    assert [out.shape[1] for out in run(model, image(1, 5, 64, 64))] == list(CHANNELS[name])
    says = r'expected input.* to have 5 channels|expected \(N, 5, H, W\)'
    with pytest.raises((ValueError, RuntimeError), match=says):
        model(image(1, 3, 64, 64))


@every_backbone
def test_initialisation(name):
    model = build(name)
    model.init_weights()
    assert all(out.isfinite().all() for out in run(model.eval(), image(1, 3, 64, 64)))
    weights = [m.weight for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear)) and m.weight.numel() > 400]
    if VARIANTS[name]['type'] in CONVNEXTS:
        assert all(0.017 < weight.std() < 0.023 for weight in weights)


@every_backbone
@pytest.mark.parametrize('wrong,says', [
    *[(dict(out_indices=indices), 'out_indices must name stages 0 to 3, each once and ascending, got')
      for indices in ((0, 4), (-1, ), (), (1, 0), (2, 2), 3)],
    *[(dict(frozen_stages=stages), f'frozen_stages must be between -1 and 4, got {stages}') for stages in (-2, 5)],
    *[(dict(drop_path_rate=rate), 'drop_path_rate must be at least 0 and below 1') for rate in (-0.1, 1)],
], ids=str)
def test_bad_common_arguments(name, wrong, says):
    with pytest.raises(ValueError, match=says):
        build(name, **wrong)


@pytest.mark.parametrize('name', [name for name in ONE_OF_EACH.values() if 'arch' in VARIANTS[name]])
def test_bad_archs(name):
    arch = VARIANTS[name]['arch']
    first = next(iter(arch))
    for wrong, says in (('huge', "unknown arch 'huge': give one of .*, or a dict with the keys"),
                        (None, 'unknown arch None'),
                        ({key: value for key, value in arch.items() if key != first}, rf"missing: \['{first}'\]"),
                        (arch | dict(heads=[1]), r"unknown: \['heads'\]"),
                        (arch | {first: arch[first][:2]}, f'{first} gives a value for each of [34] stages'),
                        (arch | {first: 3}, f'{first} gives a value for each of [34] stages, got 3')):
        with pytest.raises(ValueError, match=says):
            build(name, arch=wrong)


@pytest.mark.parametrize('name,wrong,says', [
    ('hornet-7x7', dict(arch=HORNET | dict(filters=['5x5'] * 4)), "unknown filter '5x5'"),
    ('hornet-7x7', dict(arch=HORNET | dict(orders=[5, 3, 4, 5])), 'pass a multiple of 16, or a lower order'),
    ('parc-mobilenetv2', dict(parc_blocks=(0, 0, 0, 4, 1, 1, 0)), r'at most \(0, 1, 2, 3, 2, 2, 0\)'),
    ('parc-mobilenetv2', dict(parc_blocks=(0, 0, 3, 1)), r'each of the 7 groups .* got \(0, 0, 3, 1\)'),
    ('parc-convnext', dict(parc_blocks=(0, 0, 3, 1)), r'of \[1, 1, 2, 1\] blocks; got \(0, 0, 3, 1\)'),
    ('parc-convnext', dict(parc_blocks=(1, 1)), r'got \(1, 1\)'),
    ('parc-convnext', dict(parc_backend='dft'), "unknown backend 'dft'"),
    ('parcnet', dict(arch=dict(depths=[1] * 3, inner_channels=[16, 17, 16], mixer_channels=[16] * 3)), 'even'),
    ('parcnet', dict(arch=dict(depths=[1] * 3, inner_channels=[8, 16, 16], mixer_channels=[16] * 3)), 'at least 16'),
    ('slak', dict(kernel_size=(51, 49)), r'one size for each of the 4 stages, .* got \(51, 49\)'),
    ('slak', dict(kernel_size=(51, 48, 47, 13)), 'kernel_size must be odd and positive'),
    ('slak', dict(small_kernel=4), 'small_kernel must be odd and positive'),
    ('kw-resnet18', dict(depth=20), 'depth must be one of 18, 34, 50, 101, got 20'),
    ('kw-resnet18', dict(cell_num_ratio=0), 'cell_num_ratio must be positive, got 0'),
    ('kw-resnet18', dict(cell_num_ratio=(1, 1)), 'cell_num_ratio gives 2 ratios, but there are 4 groups'),
    ('kw-mobilenetv2', dict(dynamic_pointwise=(6, 7)), r'dynamic_pointwise must be within 1..6, got \[6, 7\]'),
    ('transcnn', dict(head_width=3), r'channels \(8\) must be a multiple of head_width \(3\)'),
    ('transcnn', dict(kernel_sizes=(3, 3)), r'kernel_sizes gives a value for each of 4 stages, got \(3, 3\)'),
    ('transcnn', dict(pool_ratios=(8, 4, 2, 2)), 'grid_size=1'),
    ('hat-net', dict(grid_sizes=(8, 7, 7)), r'grid_sizes gives a value for each of 4 stages, got \(8, 7, 7\)'),
    ('hat-net', dict(pool_ratios=(8, 4, 2, 2)), 'grid_size=1'),
])
def test_bad_arguments(name, wrong, says):
    with pytest.raises(ValueError, match=says):
        build(name, **wrong)


QUICK_TO_COMPILE = ('hornet-gf', 'parc-convnext', 'slak-deployed', 'transcnn', 'hat-net')


def with_slow(quick):
    """All variants, of which those that are not `quick` are slow tests."""
    return pytest.mark.parametrize('name', [
        pytest.param(name, marks=[] if name in quick else pytest.mark.slow) for name in VARIANTS])


@with_slow(QUICK_TO_COMPILE)
@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
def test_torch_compile_without_a_graph_break(name, training):
    torch.compiler.reset()
    model, x = build(name).train(training), image(2, 3, 64, 96)
    compiled = torch.compile(copy.deepcopy(model), backend='eager', fullgraph=True)
    with torch.set_grad_enabled(training):
        assert_near(compiled(x), model(x))


@pytest.mark.slow
@every_variant
def test_torch_compile_with_its_default_compiler(name):
    if shutil.which('gcc') is None:
        pytest.skip('the default compiler of torch.compile needs gcc')
    torch.compiler.reset()
    model, x = build(name), image(2, 3, 64, 96)
    compiled = copy.deepcopy(model)
    compiled.compile()
    assert_near(run(compiled.eval(), x), run(model.eval(), x), tolerance=1e-3)
    outs, grads = train_step(compiled, x)
    expected, expected_grads = train_step(model, x)
    assert_near([out.detach() for out in outs], [out.detach() for out in expected], tolerance=1e-3)
    assert all(grads[key].isfinite().all() for key in expected_grads)


@with_slow(QUICK_TO_COMPILE)
def test_torch_export(name):
    model, x = build(name).eval(), image(1, 3, 64, 96)
    exported = torch.export.export(model, (x, )).module()
    assert_near(run(exported, x), run(model, x))
