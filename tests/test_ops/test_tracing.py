"""Operators recorded by torch.export, by TorchScript's ONNX exporter and by torch.compile."""
import copy
import io
import shutil
import warnings

import pytest
import torch
from torch import nn
from torch.library import opcheck

from plugconv_mm.ops import (
    HMHSA,
    DecomposedLargeKernelConv2d,
    GnConv2d,
    KWConv2d,
    KWLinear,
    LargeKernelConv2d,
    ParCHW2d,
    global_local_filter,
)
from plugconv_mm.ops.parc.backends import BACKENDS, fft

# What is recorded, and the size of its map.
OPERATORS = {
    **{f'parc-{backend}': (lambda backend=backend: ParCHW2d(8, meta_size=7, backend=backend), (6, 9))
       for backend in (*BACKENDS, 'auto')},
    **{f'parc-dense-{backend}': (
        lambda backend=backend: ParCHW2d(8, meta_size=7, depthwise=False, backend=backend), (7, 6))
       for backend in (*BACKENDS, 'auto')},
    'gnconv-7x7': (lambda: GnConv2d(8, order=2), (5, 8)),
    'gnconv-gf': (lambda: GnConv2d(8, order=2, filter='gf', filter_size=(7, 4)), (5, 8)),
    'gnconv-k21': (lambda: GnConv2d(8, order=2, filter='k21', scale=0.5), (5, 8)),
    'gnconv-parc': (lambda: GnConv2d(8, order=2, filter=dict(type='ParCHW2d', meta_size=7)), (5, 8)),
    'gnconv-large': (lambda: GnConv2d(
        8, order=2, filter=dict(type='DecomposedLargeKernelConv2d', kernel_size=21), proj_out=False), (5, 8)),
    'kw-conv': (lambda: KWConv2d(8, 8, 3, stride=2, padding=1), (9, 12)),
    'kw-conv-grouped': (lambda: KWConv2d(8, 8, (3, 5), padding='same', groups=4), (9, 12)),
    'kw-linear': (lambda: nn.Sequential(nn.Flatten(2), KWLinear(30, 7)), (5, 6)),
    'large-kernel': (lambda: DecomposedLargeKernelConv2d(8, kernel_size=21), (12, 7)),
    'whole-kernel': (lambda: LargeKernelConv2d(8, kernel_size=21), (12, 7)),
    'h-mhsa': (lambda: HMHSA(8, grid_size=4, pool_ratio=2, head_width=4), (6, 9)),
    'h-mhsa-plain': (lambda: HMHSA(8, grid_size=1, head_width=4), (6, 9)),
}
QUICK = ('parc-fft', 'parc-dense-fft', 'gnconv-gf')
every_operator = pytest.mark.parametrize('name', OPERATORS)


def make(name):
    torch.manual_seed(0)
    module, size = OPERATORS[name]
    return module().eval(), torch.randn(2, 8, *size)


def batches(x):
    """Batches of other sizes than the one that was recorded, and of that."""
    for n in (1, 2, 5):
        yield torch.cat([x] * 3)[:n] + torch.arange(n).view(n, 1, 1, 1)


def run(module, x):
    with torch.no_grad():
        return module(x)


def assert_near(got, want):
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(torch.__version__ < (2, 10), reason='torch.export keeps some batch sizes apart')
@every_operator
@pytest.mark.parametrize('strict', [False, pytest.param(True, marks=pytest.mark.slow)])
def test_torch_export_of_any_batch(name, strict):
    module, x = make(name)
    exported = torch.export.export(module, (x, ), dynamic_shapes=({0: torch.export.Dim('batch')}, ), strict=strict)
    # Other runtimes know neither operators of ours nor, many of them, complex numbers.
    for node in exported.graph.nodes:
        assert 'plugconv_mm' not in str(node.target)
        value = node.meta.get('val')
        assert not (isinstance(value, torch.Tensor) and value.is_complex())
    for batch in batches(x):
        assert_near(run(exported.module(), batch), run(module, batch))


@every_operator
def test_onnx_by_torchscript(name):
    onnxruntime = pytest.importorskip('onnxruntime')
    module, x = make(name)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.onnx.export(module, (x, ), file, dynamo=False, opset_version=17, input_names=['x'],
                          dynamic_axes={'x': {0: 'batch'}})
    session = onnxruntime.InferenceSession(file.getvalue())
    for batch in batches(x):
        output, = session.run(None, {'x': batch.numpy()})
        assert_near(torch.from_numpy(output), run(module, batch))


@pytest.mark.parametrize('name', [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
                                  for name in OPERATORS])
@pytest.mark.parametrize('training', [False, True])
def test_torch_compile_traces_gradients(name, training):
    """All but the code generation of the default compiler."""
    torch.compiler.reset()
    module, x = make(name)
    module.train(training)
    compiled = torch.compile(copy.deepcopy(module), backend='aot_eager', fullgraph=True)
    sides = []
    for m in (compiled, module):
        given = x.clone().requires_grad_()
        y = m(given)
        upstream = torch.linspace(-1, 1, y.numel()).view_as(y)
        sides.append((y.detach(), *torch.autograd.grad(y, [given, *m.parameters()], upstream)))
    for got, want in zip(*sides, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3 * want.abs().max().item())


# The operators that torch.compile sees in place of transforms.


@pytest.mark.parametrize('size, weight_size', [
    ((6, 9), (6, 5)), ((6, 9), (3, 2)), ((5, 8), (3, 2)), ((1, 2), (2, 2)), ((1, 1), (1, 1))], ids=str)
def test_global_filter_operator(size, weight_size):
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, *weight_size, 2, dtype=torch.float64, requires_grad=True)
    operator = global_local_filter._filter_operator
    assert torch.autograd.gradcheck(operator, (x, weight))
    for layout in (torch.contiguous_format, torch.channels_last):
        opcheck(operator, (x.detach().contiguous(memory_format=layout).requires_grad_(), weight))


@pytest.mark.parametrize('width, length', [(1, 5), (1, 6), (2, 6), (4, 5), (4, 2), (1, 1)])
def test_fast_parc_operators(width, length):
    stretched = torch.randn(4, width, length, dtype=torch.float64, requires_grad=True)
    lines = torch.randn(2, 4, 3, length, dtype=torch.float64, requires_grad=True)
    spectrum, product = fft._spectrum_operator, fft._fast_parc_operator
    assert torch.autograd.gradcheck(
        lambda lines, stretched: product(lines, spectrum(stretched), 4 // width, True)[0], (lines, stretched))
    opcheck(spectrum, (stretched, ))
    kernel = spectrum(stretched).detach()
    for layout in (lines.detach(), lines.detach().mT.contiguous().mT):
        opcheck(product, (layout.requires_grad_(), kernel, 4 // width, False))
        opcheck(product, (layout.requires_grad_(), kernel.clone().requires_grad_(), 4 // width, True))


@pytest.mark.skipif(shutil.which('g++') is None, reason='the default compiler of torch.compile needs g++')
@pytest.mark.slow
@pytest.mark.parametrize('name', [name for name in OPERATORS if name != 'kw-linear'])
@pytest.mark.parametrize('size', [14, 32, 9])
@pytest.mark.parametrize('training', [False, True])
def test_torch_compile_with_its_default_compiler(name, size, training):
    torch.compiler.reset()
    module, _ = make(name)
    # Between convolutions, whose layout on a CPU is channels-last.
    module = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), module, nn.Conv2d(8, 8, 1)).train(training)
    x = torch.randn(2, 8, size, size).contiguous(memory_format=torch.channels_last)
    compiled = copy.deepcopy(module)
    compiled.compile()
    with torch.set_grad_enabled(training):
        assert_near(compiled(x), module(x))
        if training:
            for m in (compiled, module):
                m(x).square().mean().backward()
            for got, want in zip(compiled.parameters(), module.parameters(), strict=True):
                assert (got.grad - want.grad).norm() <= 1e-3 * want.grad.norm() + 1e-6
