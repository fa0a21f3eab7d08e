"""KernelWarehouse against its definition, written out kernel by kernel and position by position."""
import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from random_state import randomise_state
from torch import nn

from plugconv_mm.ops import KernelWarehouse, KWConv2d, KWLinear


def attention_by_definition(layer, pooled, start):
    """α (mixtures, cells) of one sample."""
    a, tau = layer.attention, layer.warehouse.temperature
    n = layer.warehouse.weights[layer.warehouse_index].shape[0]
    hidden = a.fc1.weight @ pooled + (0 if a.fc1.bias is None else a.fc1.bias)
    norm = a.norm1
    if isinstance(norm, nn.BatchNorm1d):
        hidden = (hidden - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
    else:
        hidden = norm(hidden[None])[0]
    z = a.fc2.weight @ hidden.clamp(min=0)
    if a.fc3 is None:
        rows = (z + a.fc2.bias).view(-1, n + 1)
    else:
        own, basis = n - a.fc3.out_features, a.fc3.in_features
        rows = []
        for row in z.view(-1, own + basis + 1):
            others = list(a.fc3.weight @ row[own:own + basis])
            rows.append(torch.stack(others[:start] + list(row[:own]) + others[start:] + [row[-1]]))
        rows = torch.stack(rows) + a.basis_bias.view(-1, n + 1)
    alpha = (1 - tau) * rows / (rows.abs().sum(1, keepdim=True) + 1e-3)
    return alpha[:, :-1]


def kernel_by_definition(layer, alpha):
    """The kernel of one sample, cell by cell in the order (position, output block, input block)."""
    cells = layer.warehouse.weights[layer.warehouse_index]
    c_out, c_in = cells.shape[1:3]
    out, inner, *extent = layer.kernel_shape
    kernel = torch.zeros(out, inner, *extent, dtype=cells.dtype).flatten(2)
    mixture = 0
    for position in range(kernel.shape[2]):
        for o in range(0, out, c_out):
            for i in range(0, inner, c_in):
                cell = sum(weight * e for weight, e in zip(alpha[mixture], cells, strict=True))
                kernel[o:o + c_out, i:i + c_in, position] = cell.view(c_out, c_in)
                mixture += 1
    return kernel.view(out, inner, *extent)


class TwoLayers(nn.Module):

    def __init__(self, **settings):
        super().__init__()
        self.warehouse = KernelWarehouse(sharing_range=('conv', ), **settings)
        self.layers = nn.Sequential(
            KWConv2d(8, 12, 3, padding=1, warehouse=self.warehouse, name='conv0'),
            KWConv2d(12, 24, (1, 3), stride=2, padding=(0, 1), groups=3, warehouse=self.warehouse, name='conv1'))
        self.warehouse.allocate(self)

    def forward(self, x):
        return self.layers(x)


def two_layers(**settings):
    return randomise_state(TwoLayers(**settings)).double().eval()


@pytest.mark.parametrize('settings', [
    dict(),
    dict(cell_num_ratio=2, cell_outplane_ratio=0.5),
    dict(cell_num_ratio=0.25, cell_inplane_ratio=0.5),
    dict(cell_num_ratio=0.5, nonlocal_basis_ratio=0.5, cell_inplane_ratio=0.5),
    dict(norm_layer=nn.LayerNorm),
])
@pytest.mark.parametrize('batch', [1, 3])
def test_convolutions(settings, batch):
    net = two_layers(**settings)
    x = torch.randn(batch, 8, 6, 7, dtype=torch.float64)
    own = net.layers[0].attention.initial_cell < len(net.warehouse.weights[0])
    starts = 0, int(own.sum()) * max(settings.get('cell_num_ratio', 1), 1)
    want = x
    for layer, start in zip(net.layers, starts, strict=True):
        samples = []
        for sample in want:
            alpha = attention_by_definition(layer, sample.mean((1, 2)), start)
            samples.append(F.conv2d(sample[None], kernel_by_definition(layer, alpha), layer.bias, layer.stride,
                                    layer.padding, layer.dilation, layer.groups))
        want = torch.cat(samples)
    torch.testing.assert_close(net(x), want)


@pytest.mark.parametrize('shape', [(3, 8), (3, 5, 8), (1, 2, 3, 8)])
def test_linear(shape):
    layer = randomise_state(KWLinear(8, 6)).double().eval()
    x = torch.randn(shape, dtype=torch.float64)
    want = []
    for sample in x:
        alpha = attention_by_definition(layer, sample.reshape(-1, 8).mean(0), 0)
        want.append(sample @ kernel_by_definition(layer, alpha)[:, :, 0, 0].T + layer.bias)
    torch.testing.assert_close(layer(x), torch.stack(want))


def test_scale_and_shift_of_the_output():
    conv = randomise_state(KWConv2d(4, 6, 3)).eval()
    x, scale, shift = torch.randn(2, 4, 8, 8), torch.randn(6), torch.randn(6)
    want = conv(x) * scale[:, None, None] + shift[:, None, None]
    torch.testing.assert_close(conv(x, scale, shift), want, atol=1e-4, rtol=1e-4)


def test_cells_are_cut_by_the_greatest_common_divisors():
    warehouse = KernelWarehouse((1, 0.5), 0.5, (1, 0.25), sharing_range=('layer', ))
    net = nn.ModuleList([
        KWConv2d(32, 64, 3, warehouse=warehouse, name='layer0_conv0'),
        KWConv2d(48, 96, 1, warehouse=warehouse, name='layer1_conv0'),
        KWConv2d(16, 16, 3, groups=16, warehouse=warehouse, name='layer1_conv1')])
    warehouse.allocate(net)
    assert warehouse.names == ['layer_conv0', 'layer_conv1']
    # 32 by 8 channels: 9 · 2 · 4 and 3 · 6 cells; 4 by 1 channels: half of 9 · 4
    assert [tuple(w.shape) for w in warehouse.weights] == [(90, 32, 8, 1, 1), (18, 4, 1, 1, 1)]


@pytest.mark.parametrize('ratio', [0.25, 0.5, 1, 2, 4])
def test_at_temperature_one_every_cell_serves_once(ratio):
    net = two_layers(cell_num_ratio=ratio, cell_inplane_ratio=0.5, cell_outplane_ratio=0.5)
    cells = net.warehouse.weights[0]
    net.warehouse.set_temperature(1)
    used = []
    for layer in net.layers:
        alpha = layer.attention(torch.randn(3, layer.in_channels, dtype=torch.float64), 1.)
        assert (alpha == alpha[0]).all()
        assert set(alpha.unique().tolist()) <= {0., 1.}
        per_mixture = alpha[0].sum(1)
        if ratio >= 1:
            assert (per_mixture == 1).all()
        else:
            assert per_mixture.sum() == ratio * len(per_mixture)
        used += alpha[0].nonzero()[:, 1].tolist()
    assert used == list(range(0, len(cells), max(int(ratio), 1)))


def test_quarter_budget_spreads_the_cells_over_the_kernel():
    conv = KWConv2d(8, 8, 4, warehouse=(warehouse := KernelWarehouse(0.25)))
    warehouse.allocate(conv)
    n = len(warehouse.weights[0])
    assert n == 4
    want = [0, n, n, n, n, 1, n, n, n, n, 2, n, n, n, n, 3]
    assert conv.attention.initial_cell.tolist() == want


def test_temperature_goes_from_fixed_cells_to_attention():
    net = two_layers()
    pooled = torch.randn(2, 8, dtype=torch.float64)
    attention = net.layers[0].attention
    cold, hot = attention(pooled, 0.), attention(pooled, 1.)
    torch.testing.assert_close(attention(pooled, 0.3), 0.7 * cold + 0.3 * hot)
    for wrong in (-0.1, 1.1):
        with pytest.raises(ValueError, match='from 1 to 0'):
            net.warehouse.set_temperature(wrong)


@pytest.mark.parametrize('settings', [dict(), dict(cell_num_ratio=0.5, nonlocal_basis_ratio=0.5)])
def test_every_parameter_learns(settings):
    net = two_layers(**settings).train()
    x = torch.randn(4, 8, 6, 6, dtype=torch.float64, requires_grad=True)
    net.warehouse.set_temperature(0.5)
    net(x).square().sum().backward()
    assert x.grad.abs().sum() > 0
    for name, p in net.named_parameters():
        assert p.grad is not None and p.grad.abs().sum() > 0, name


def test_gradients():
    warehouse = KernelWarehouse(cell_inplane_ratio=0.5)
    conv = KWConv2d(4, 4, (1, 2), groups=2, warehouse=warehouse)
    warehouse.allocate(conv)
    randomise_state(warehouse)
    conv = randomise_state(conv).double().eval()
    x = torch.randn(2, 4, 2, 3, dtype=torch.float64, requires_grad=True)
    cells = torch.randn(4, 4, 1, 1, 1, dtype=torch.float64, requires_grad=True)
    assert warehouse.weights[0].shape == cells.shape
    del warehouse.weights
    warehouse.weights = [cells]
    assert torch.autograd.gradcheck(lambda *_: conv(x), (x, cells))


def test_one_sample_trains_by_the_running_statistics():
    conv = randomise_state(KWConv2d(4, 6, 3))
    x = torch.randn(1, 4, 8, 8)
    want = copy.deepcopy(conv).eval()(x)
    before = conv.attention.norm1.running_mean.clone()
    torch.testing.assert_close(conv.train()(x), want)
    assert torch.equal(conv.attention.norm1.running_mean, before)


def test_samples_do_not_see_each_other():
    net = two_layers()
    x = torch.randn(3, 8, 6, 7, dtype=torch.float64)
    torch.testing.assert_close(net(x), torch.cat([net(s) for s in x.split(1)]))
    torch.testing.assert_close(net(x.contiguous(memory_format=torch.channels_last)), net(x))


def test_copies_share_their_own_warehouse():
    net = two_layers()
    x = torch.randn(2, 8, 6, 7, dtype=torch.float64)
    want = net(x)
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert twin.layers[0].warehouse is twin.layers[1].warehouse is twin.warehouse is not net.warehouse
        torch.testing.assert_close(twin(x), want)
        twin.warehouse.set_temperature(1)
        assert not torch.allclose(twin(x), want)
    torch.testing.assert_close(net(x), want)
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    other = two_layers()
    for p in other.parameters():
        nn.init.zeros_(p)
    other.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(other(x), want)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match='cell_num_ratio must be positive'):
        KernelWarehouse(cell_num_ratio=0)
    with pytest.raises(ValueError, match='groups must divide'):
        KWConv2d(8, 12, 3, groups=5)
    warehouse = KernelWarehouse(cell_num_ratio=(1, 2))
    conv = KWConv2d(8, 12, 3, warehouse=warehouse)
    with pytest.raises(RuntimeError, match='warehouse.allocate'):
        conv(torch.rand(1, 8, 5, 5))
    with pytest.raises(ValueError, match='1 layers were made for this warehouse, but the network has 0'):
        warehouse.allocate(nn.Sequential())
    with pytest.raises(ValueError, match='cell_num_ratio gives 2 ratios, but there are 1 groups: conv'):
        warehouse.allocate(conv)
    conv = KWConv2d(8, 12, 3, warehouse=(warehouse := KernelWarehouse(cell_inplane_ratio=0.4)))
    with pytest.raises(ValueError, match='cells of 12 by 3 channels do not tile a kernel'):
        warehouse.allocate(conv)
    conv = KWConv2d(8, 12, 3)
    with pytest.raises(RuntimeError, match='allocated before'):
        conv.warehouse.allocate(conv)
    with pytest.raises(RuntimeError, match='make all layers first'):
        KWConv2d(8, 12, 3, warehouse=conv.warehouse)
    with pytest.raises(ValueError, match=r'expected \(N, 8, H, W\), got \(1, 4, 5, 5\)'):
        conv(torch.rand(1, 4, 5, 5))
    with pytest.raises(ValueError, match=r'expected \(N, ..., 8\), got \(2, 4\)'):
        KWLinear(8, 12)(torch.rand(2, 4))
