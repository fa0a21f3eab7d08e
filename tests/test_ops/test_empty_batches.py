"""Batches of no samples, as detectors without proposals have them: an empty map with gradients, as of nn.Conv2d."""
import pytest
import torch
from joined_layers import ConvBN, ResidualMLP
from torch import nn

from plugconv_mm.ops import (
    HMHSA,
    DecomposedLargeKernelConv2d,
    GlobalLocalFilter,
    GnConv2d,
    KernelWarehouse,
    KWConv2d,
    KWLinear,
    LargeKernelConv2d,
    LayerNorm2d,
    ParC2d,
    ParCHW2d,
    parc_conv2d,
    switch_to_deploy,
)

MAP = 0, 8, 9, 7


class FunctionalParC(nn.Module):

    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(8, 1, 5, 1)), nn.Parameter(torch.rand(8))
        self.position_embedding = nn.Parameter(torch.rand(1, 8, 5, 1))

    def forward(self, x):
        return parc_conv2d(x, self.weight, self.bias, self.position_embedding)


def deployed(kernel_size):
    module = DecomposedLargeKernelConv2d(8, kernel_size)
    switch_to_deploy(module)
    return module


def shared_warehouse():
    warehouse = KernelWarehouse(cell_num_ratio=0.5, nonlocal_basis_ratio=0.5, sharing_range=('conv', ))
    net = nn.Sequential(KWConv2d(8, 16, 3, padding=1, groups=2, warehouse=warehouse, name='conv1'),
                        KWConv2d(16, 8, 1, warehouse=warehouse, name='conv2'))
    warehouse.allocate(net)
    return nn.ModuleDict(dict(warehouse=warehouse, net=net))


OPERATORS = {
    'nn.Conv2d': lambda: nn.Conv2d(8, 8, 3, padding=1),
    'parc_conv2d': FunctionalParC,
    **{f'ParC2d-{direction}-{groups}-{backend}':
       lambda direction=direction, groups=groups, backend=backend: ParC2d(8, direction, 7, groups, backend=backend)
       for direction in 'HW' for groups in (1, 2, 8) for backend in ('auto', 'fft', 'gemm', 'spatial')},
    'ParCHW2d': lambda: ParCHW2d(8, 7),
    'GlobalLocalFilter': lambda: GlobalLocalFilter(8),
    'GnConv2d-7x7': lambda: GnConv2d(8, order=3, scale=0.5),
    'GnConv2d-gf': lambda: GnConv2d(8, filter='gf'),
    'GnConv2d-k21': lambda: GnConv2d(8, filter='k21', scale=0.5),
    'GnConv2d-parc': lambda: GnConv2d(8, filter=dict(type='ParCHW2d', meta_size=5), proj_out=False),
    'DecomposedLargeKernelConv2d-7': lambda: DecomposedLargeKernelConv2d(8, 7),
    'DecomposedLargeKernelConv2d-31': lambda: DecomposedLargeKernelConv2d(8, 31),
    'LargeKernelConv2d-7': lambda: LargeKernelConv2d(8, 7),
    'LargeKernelConv2d-31': lambda: LargeKernelConv2d(8, 31),
    'deployed-7': lambda: deployed(7),
    'deployed-31': lambda: deployed(31),
    'KWConv2d': lambda: KWConv2d(8, 8, 3, padding=1),
    'KWConv2d-groups': lambda: KWConv2d(8, 8, 3, padding='same', groups=4, bias=False),
    'shared warehouse': shared_warehouse,
    'HMHSA-windows': lambda: HMHSA(8, 4, 2, head_width=4),
    'HMHSA-plain': lambda: HMHSA(8, 1, 1, head_width=4),
    'LayerNorm2d': lambda: LayerNorm2d(8),
    'residual_mlp': ResidualMLP,
    'conv_bn': lambda: ConvBN(nn.Conv2d(8, 8, 3, padding=1)),
    'conv_bn-KWConv2d': lambda: ConvBN(KWConv2d(8, 8, 3, padding=1)),
}


def check(module, x, out_shape, autocast, training):
    module.train(training)
    state = {key: value.clone() for key, value in module.state_dict().items() if 'num_batches' not in key}
    call = module['net'] if isinstance(module, nn.ModuleDict) else module
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        y = call(x)
        with torch.no_grad():
            again = call(x)
    assert y.shape == again.shape == out_shape
    one = torch.rand(2, *x.shape[1:])
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast), torch.no_grad():
        assert y.dtype == again.dtype == call.eval()(one).dtype
    for key, value in state.items():  # no running statistic has moved
        assert torch.equal(value, module.state_dict()[key]), key
    y.float().sum().backward()
    assert x.grad.shape == x.shape
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and not parameter.grad.any(), name


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('autocast', [False, True])
@pytest.mark.parametrize('name', OPERATORS)
def test_maps(name, autocast, training):
    check(OPERATORS[name](), torch.rand(MAP, requires_grad=True), MAP, autocast, training)


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('autocast', [False, True])
@pytest.mark.parametrize('shape', [(0, 8), (0, 5, 8), (0, 2, 3, 8), (2, 0, 8)], ids=str)
def test_features(shape, autocast, training):
    check(KWLinear(8, 6), torch.rand(shape, requires_grad=True), (*shape[:-1], 6), autocast, training)


def test_strides_and_extents():
    """The output has the size that nn.Conv2d would give."""
    for arguments in (dict(kernel_size=3), dict(kernel_size=(3, 2), stride=(2, 1), padding=(1, 0)),
                      dict(kernel_size=3, dilation=2, groups=4)):
        x = torch.rand(MAP)
        assert KWConv2d(8, 12, **arguments)(x).shape == nn.Conv2d(8, 12, **arguments)(x).shape


@pytest.mark.parametrize('filter', ['7x7', 'gf'])
@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
def test_data_types(filter, dtype):
    y = GnConv2d(8, filter=filter).to(dtype)(torch.rand(MAP, dtype=dtype))
    assert y.shape == MAP and y.dtype == dtype
