"""ParC against its definition, its three forms against each other, and what must never go wrong silently."""
import copy
import pickle
import shutil

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from plugconv_mm.ops import ParC2d, ParCHW2d, ParCMixer, parc_conv2d
from plugconv_mm.ops.parc import layers
from plugconv_mm.ops.parc.backends import BACKENDS, fft

SHAPES = [(2, 13, 10), (1, 14, 1), (2, 1, 9), (1, 7, 16)]


def defined(x, weight, bias=None, position_embedding=None):
    """The sum of the definition, one shift of the map after another."""
    axis = 3 if weight.shape[2] == 1 else 2
    length = x.shape[axis]
    size = (length, 1) if axis == 2 else (1, length)

    def stretch(t):
        return F.interpolate(t, size=size, mode='bilinear', align_corners=True)

    if position_embedding is not None:
        x = x + stretch(position_embedding)
    weight, groups = stretch(weight), x.shape[1] // weight.shape[1]
    y = sum(F.conv2d(x.roll(-k, axis), weight.narrow(axis, k, 1), groups=groups) for k in range(length))
    return y if bias is None else y + bias.view(1, -1, 1, 1)


def operands(direction='H', channels=6, groups=6, k=7, batch=2, height=13, width=10, dtype=torch.float64):
    g = torch.Generator().manual_seed(height * 31 + width)
    side = (k, 1) if direction == 'H' else (1, k)
    shapes = ((batch, channels, height, width), (channels, channels // groups, *side), (channels,),
              (1, channels, *side))
    return [torch.randn(s, generator=g, dtype=torch.float64).to(dtype) for s in shapes]


def error(got, expected):
    return ((got - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize('batch,height,width', SHAPES)
@pytest.mark.parametrize('groups', [6, 3, 1])
@pytest.mark.parametrize('direction', 'HW')
@pytest.mark.parametrize('dtype,tolerance', [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_values_and_gradients_follow_the_definition(direction, groups, batch, height, width, dtype, tolerance):
    args = operands(direction, groups=groups, batch=batch, height=height, width=width)
    args = [a.requires_grad_() for a in args]
    expected = defined(*args)
    upstream = torch.randn_like(expected)
    expected_grads = torch.autograd.grad(expected, args, upstream)
    for backend in (*BACKENDS, 'auto'):
        given = [a.detach().to(dtype).requires_grad_() for a in args]
        y = parc_conv2d(*given, backend=backend)
        grads = torch.autograd.grad(y, given, upstream.to(dtype))
        assert y.dtype == dtype
        for got, want in zip((y, *grads), (expected, *expected_grads), strict=True):
            assert error(got.double(), want) < tolerance, backend


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('direction,groups,length', [('H', 4, 6), ('W', 4, 5), ('H', 1, 5), ('W', 2, 6)])
def test_gradcheck(backend, direction, groups, length):
    height, width = (length, 2) if direction == 'H' else (2, length)
    args = [a.requires_grad_() for a in operands(direction, 4, groups, 3, 2, height, width)]
    assert gradcheck(lambda *a: parc_conv2d(*a, backend=backend), args)


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('present', [(False, False), (True, False), (False, True)])
def test_bias_and_embedding_are_optional(backend, present):
    x, weight, bias, pe = operands()
    bias, pe = bias if present[0] else None, pe if present[1] else None
    assert error(parc_conv2d(x, weight, bias, pe, backend=backend), defined(x, weight, bias, pe)) < 1e-10


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('direction', 'HW')
def test_without_an_embedding_a_turned_map_gives_a_turned_answer(backend, direction):
    x, weight, bias, _ = operands(direction)
    axis = 2 if direction == 'H' else 3
    y = parc_conv2d(x, weight, bias, backend=backend)
    assert error(parc_conv2d(x.roll(4, axis), weight, bias, backend=backend), y.roll(4, axis)) < 1e-10


@pytest.mark.parametrize('backend', BACKENDS)
def test_each_image_of_a_batch_stands_alone(backend):
    x, *parameters = operands(groups=1, batch=3)
    y = parc_conv2d(x, *parameters, backend=backend)
    alone = torch.cat([parc_conv2d(one, *parameters, backend=backend) for one in x.split(1)])
    assert error(y, alone) < 1e-12


@pytest.mark.parametrize('backend', (*BACKENDS, 'auto'))
@pytest.mark.parametrize('groups', [6, 1])
@pytest.mark.parametrize('direction', 'HW')
def test_a_batch_of_no_images_gives_no_maps(backend, groups, direction):
    layer = ParC2d(6, direction, 7, groups=groups, backend=backend)
    for height, width in ((7, 7), (13, 10)):
        x = torch.zeros(0, 6, height, width, requires_grad=True)
        y = layer(x)
        assert y.shape == x.shape
        y.sum().backward()
        assert x.grad.shape == x.shape and not any(p.grad.any() for p in layer.parameters())
        with torch.no_grad():
            assert layer.eval()(x).shape == x.shape
        layer.train()


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('groups', [6, 1])
@pytest.mark.parametrize('direction', 'HW')
def test_memory_formats_and_strides(backend, groups, direction):
    layer = ParC2d(6, direction, 7, groups=groups, backend=backend).double().eval()
    x = operands(direction, groups=groups)[0]
    views = {
        'channels_last': x.contiguous(memory_format=torch.channels_last),
        'channel slice': torch.cat((x, x), dim=1)[:, :6],
        'transposed': x.mT.contiguous().mT,
        'every second column': x.repeat_interleave(2, dim=3)[..., ::2],
    }
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            expected = layer(x)
            assert expected.is_contiguous()
            for name, view in views.items():
                assert torch.equal(view, x)
                y = layer(view)
                assert error(y, expected) < 1e-12, name
                fmt = torch.channels_last if name == 'channels_last' else torch.contiguous_format
                assert y.is_contiguous(memory_format=fmt), name


@pytest.mark.parametrize('backend', (*BACKENDS, 'auto'))
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_types(backend, dtype):
    args = operands(groups=1, dtype=dtype)
    y = parc_conv2d(*args, backend=backend)
    assert y.dtype == dtype
    assert error(y.double(), defined(*[a.double() for a in args])) < 0.02


@pytest.mark.parametrize('backend', (*BACKENDS, 'auto'))
@pytest.mark.parametrize('training', [True, False])
def test_autocast(backend, training):
    layer = ParC2d(6, 'W', 7, backend=backend).train(training)
    x = operands('W', dtype=torch.float32)[0]
    expected = layer(x)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        y = layer(x)
        from_half = layer(x.bfloat16())
    assert y.dtype == from_half.dtype == torch.bfloat16
    assert error(y.float(), expected) < 0.02
    assert error(from_half.float(), expected) < 0.02
    y.float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in layer.parameters())


@pytest.mark.parametrize('compiler', ['aot_eager', pytest.param('inductor', marks=pytest.mark.slow)])
@pytest.mark.parametrize('backend', BACKENDS)
def test_torch_compile(backend, compiler):
    if compiler == 'inductor' and shutil.which('gcc') is None:
        pytest.skip('the default compiler of torch.compile needs gcc')
    layer = ParCHW2d(4, 7, backend=backend)
    compiled = torch.compile(layer, backend=compiler)
    x = torch.randn(2, 4, 9, 6)
    for mode in (True, False):
        layer.train(mode)
        y, expected = compiled(x), layer(x)
        assert error(y, expected) < 1e-5
        grads = [torch.autograd.grad(out.square().sum(), list(layer.parameters())) for out in (y, expected)]
        for a, b in zip(*grads, strict=True):
            assert error(a, b) < 1e-4


@pytest.mark.parametrize('backend', ['gemm', 'spatial'])
def test_torch_export(backend):
    layer = ParCHW2d(4, 7, depthwise=False, backend=backend).eval()
    x = torch.randn(1, 4, 9, 6)
    exported = torch.export.export(layer, (x,)).module()
    assert error(exported(x), layer(x)) < 1e-5


# Evaluation remembers what depends on the weights alone.


def count_preparations(monkeypatch):
    calls, prepare = [], layers.prepare

    def counted(plan, *args):
        calls.append(plan.geometry.length)
        return prepare(plan, *args)

    monkeypatch.setattr(layers, 'prepare', counted)
    return calls


@pytest.mark.parametrize('backend', BACKENDS)
def test_evaluation_prepares_once_per_size_and_training_always(backend, monkeypatch):
    calls = count_preparations(monkeypatch)
    layer = ParC2d(4, 'H', 7, backend=backend)
    x = torch.randn(1, 4, 9, 5)
    layer(x)
    layer(x)
    assert calls == [9, 9]
    layer.eval()
    with torch.no_grad():
        for _ in range(3):
            layer(x)
            layer(torch.randn(2, 4, 12, 5))
    assert calls == [9, 9, 9, 12]
    layer(x)  # gradients of the weights are wanted: nothing remembered may stand in
    assert calls[4:] == [9]


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('change', ['in place', 'data', 'new data', 'load', 'double', 'bias', 'embedding'])
def test_changed_weights_are_seen(backend, change):
    torch.manual_seed(0)
    layer = ParC2d(4, 'W', 7, backend=backend).eval()
    x = torch.randn(1, 4, 5, 9)
    with torch.no_grad():
        before = layer(x)
        if change == 'in place':
            layer.weight.mul_(2)
        elif change == 'data':  # as moving averages do; leaves the version counter alone
            layer.weight.data.copy_(torch.randn_like(layer.weight))
        elif change == 'new data':
            layer.weight.data = torch.randn_like(layer.weight)
        elif change == 'load':
            layer.load_state_dict(ParC2d(4, 'W', 7).state_dict())
        elif change == 'double':
            layer.double()
            x = x.double()
        else:
            (layer.bias if change == 'bias' else layer.position_embedding).data.add_(1)
        after = layer(x)
        expected = defined(x, layer.weight, layer.bias, layer.position_embedding)
    assert error(after, expected) < 1e-5
    assert change == 'double' or error(after, before) > 1e-2


def test_remembered_kernels_serve_gradients_of_the_input():
    layer = ParC2d(4, 'W', 7, backend='fft').eval().requires_grad_(False)
    x = torch.randn(1, 4, 5, 9)
    with torch.inference_mode():
        layer(x)
    x.requires_grad_()
    layer(x).square().sum().backward()
    y = x.detach().clone().requires_grad_()
    defined(y, layer.weight, layer.bias, layer.position_embedding).square().sum().backward()
    assert error(x.grad, y.grad) < 1e-5


def test_copies_and_pickles_start_with_nothing_remembered():
    layer = ParC2d(4, 'W', 7, backend='gemm').eval()
    x = torch.randn(1, 4, 5, 9)
    with torch.no_grad():
        expected = layer(x)
        for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert len(twin._cache) == 0
            assert torch.equal(twin(x), expected)
    assert set(layer.state_dict()) == {'weight', 'bias', 'position_embedding'}


@pytest.mark.parametrize('direction', 'HW')
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_big_maps_are_convolved_in_chunks(direction, bias, dtype, monkeypatch):
    layer = ParC2d(9, direction, 7, bias=bias, position_embedding=bias, backend='fft').to(dtype).eval()
    x = torch.randn(2, 18, 20, 30).to(dtype)[:, ::2]
    with torch.no_grad():
        expected = layer(x)
        monkeypatch.setattr(fft, '_CHUNK_BYTES', 2 * 2 * 20 * 30 * x.element_size())  # two channels at a time
        calls, apply = [], fft.FFT.apply
        monkeypatch.setattr(fft.FFT, 'apply', lambda self, x, *args: calls.append(x.shape[1]) or apply(self, x, *args))
        y = layer(x)
    assert calls == [2, 2, 2, 2, 1]
    assert y.is_contiguous() and y.dtype == dtype
    assert error(y.double(), expected.double()) < (1e-6 if dtype == torch.float32 else 1e-2)


def test_the_memory_is_bounded():
    layer = ParC2d(2, 'H', 7, backend='fft').eval()
    with torch.no_grad():
        for height in range(5, 45):
            layer(torch.randn(1, 2, height, 3))
    assert len(layer._cache) == layer._cache.max_entries


def test_halves_go_along_the_two_axes():
    layer = ParCHW2d(8, 7)
    x = torch.randn(2, 8, 9, 5)
    y = layer(x)
    assert torch.equal(y[:, :4], layer.parc_h(x[:, :4])) and layer.parc_h.weight.shape == (4, 1, 7, 1)
    assert torch.equal(y[:, 4:], layer.parc_w(x[:, 4:])) and layer.parc_w.weight.shape == (4, 1, 1, 7)
    assert ParCHW2d(8, 7, depthwise=False).parc_h.weight.shape == (4, 4, 7, 1)


def test_the_mixer_goes_along_both_axes_in_both_orders():
    layer = ParCMixer(8, 7)
    x = torch.randn(2, 8, 9, 5)
    y = layer(x)
    hw, wh = layer.branch_hw, layer.branch_wh
    assert [part.direction for part in (*hw, *wh)] == ['H', 'W', 'W', 'H']
    assert torch.equal(y[:, :4], hw.second(hw.first(x[:, :4]))) and torch.equal(y[:, 4:], wh.second(wh.first(x[:, 4:])))
    reached = torch.autograd.grad(layer(x.requires_grad_())[:, :, 4, 2].sum(), x)[0]
    assert reached.all()  # one position depends on the whole map
    assert not [key for key, _ in ParCMixer(8, 7, position_embedding=False, bias=False).named_parameters()
                if not key.endswith('weight')]


@pytest.mark.parametrize('height,width', [(7, 7), (14, 14), (56, 40), (200, 336)])
def test_auto_is_one_of_the_three(height, width):
    layer = ParC2d(4, 'H', 7)
    x = torch.randn(1, 4, height, width)
    chosen = layer.select_backend(x)
    assert chosen in BACKENDS
    assert error(layer(x), parc_conv2d(x, *(p for p in layer.parameters()), backend=chosen)) < 1e-6


# Bad input


@pytest.mark.parametrize('wrong,raised,says', [
    (dict(x=torch.zeros(2, 6, 13, 10, dtype=torch.int64)), TypeError, 'x must be of a floating-point type'),
    (dict(x=torch.zeros(2, 6, 13, 10, dtype=torch.complex64)), TypeError, 'x must be of a floating-point type'),
    (dict(x=[1.0]), TypeError, 'x must be a tensor, got list'),
    (dict(x=torch.zeros(6, 13, 10).double()), ValueError, r'shape \(B, C, H, W\), got \(6, 13, 10\)'),
    (dict(x=torch.zeros(2, 6, 0, 10).double()), ValueError, 'at least one channel and one position'),
    (dict(x=torch.zeros(2, 5, 13, 10).double()), ValueError, 'x has 5 channels'),
    (dict(x=torch.zeros(2, 6, 13, 10)), TypeError, 'float32 and the weight torch.float64'),
    (dict(weight=torch.zeros(6, 1, 7, 7).double()), ValueError, r'\(C, C / groups, K, 1\)'),
    (dict(weight=torch.zeros(6, 1, 1, 1).double()), ValueError, 'K of at least 2'),
    (dict(weight=torch.zeros(6, 4, 7, 1).double()), ValueError, 'groups a divisor of 6'),
    (dict(weight=torch.zeros(6, 1, 7, 1, device='meta').double()), ValueError, 'weight is on meta and x on cpu'),
    (dict(bias=torch.zeros(5).double()), ValueError, r'bias must have the shape \(6,\)'),
    (dict(bias=torch.zeros(6)), TypeError, 'bias is torch.float32'),
    (dict(position_embedding=torch.zeros(1, 6, 8, 1).double()), ValueError, r'\(1, 6, 7, 1\), got \(1, 6, 8, 1\)'),
    (dict(position_embedding=torch.zeros(1, 6, 1, 7).double()), ValueError, 'position_embedding must have the shape'),
    (dict(backend='FFT'), ValueError, "unknown backend 'FFT', expected one of 'spatial', 'fft', 'gemm', 'auto'"),
])
def test_bad_input(wrong, raised, says):
    x, weight, bias, pe = operands()
    given = dict(x=x, weight=weight, bias=bias, position_embedding=pe) | wrong
    with pytest.raises(raised, match=says):
        parc_conv2d(**given)


@pytest.mark.parametrize('arguments,says', [
    (dict(channels=4, direction='D', meta_size=7), "direction must be 'H' or 'W', got 'D'"),
    (dict(channels=4, direction='H', meta_size=1), 'meta_size must be at least 2'),
    (dict(channels=4, direction='H', meta_size=7, groups=3), 'groups must divide channels'),
    (dict(channels=4, direction='H', meta_size=7, backend='dft'), "unknown backend 'dft'"),
])
def test_bad_arguments(arguments, says):
    with pytest.raises(ValueError, match=says):
        ParC2d(**arguments)


def test_odd_channels_have_no_halves():
    with pytest.raises(ValueError, match='got 7, which two does not divide'):
        ParCHW2d(7, 14)
    with pytest.raises(ValueError, match=r'\(B, 8, H, W\), got \(1, 7, 5, 5\)'):
        ParCHW2d(8, 14)(torch.zeros(1, 7, 5, 5))
    with pytest.raises(ValueError, match='got 7, which two does not divide'):
        ParCMixer(7, 14)
    with pytest.raises(ValueError, match=r'\(B, 8, H, W\), got \(1, 7, 5, 5\)'):
        ParCMixer(8, 14)(torch.zeros(1, 7, 5, 5))
