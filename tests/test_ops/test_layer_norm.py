"""LayerNorm2d against its formula."""
import pytest
import torch

from plugconv_mm.ops import LayerNorm2d


def norm(channels, **arguments):
    torch.manual_seed(0)
    module = LayerNorm2d(channels, **arguments).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return module


@pytest.mark.parametrize('eps', [1e-6, 0.5])
@pytest.mark.parametrize('size', [(7, 9), (1, 1), (1, 4)])
def test_formula(size, eps):
    module, x = norm(6, eps=eps), torch.randn(2, 6, *size, dtype=torch.float64)
    want = (x - x.mean(1, keepdim=True)) / (x.var(1, unbiased=False, keepdim=True) + eps).sqrt()
    torch.testing.assert_close(module(x), want * module.weight[:, None, None] + module.bias[:, None, None])


def test_layouts_agree_and_the_output_is_channels_last():
    module, x = norm(6), torch.randn(2, 6, 5, 4, dtype=torch.float64)
    for y in (module(x), module(x.contiguous(memory_format=torch.channels_last))):
        assert y.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(y, module(x))


def test_gradients():
    module, x = norm(3), torch.randn(1, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: module(x), (x, *module.parameters()))


def test_names_are_those_of_a_layer_norm():
    """Weights of published ConvNeXts load, in which the norms of maps have a class of their own."""
    state = LayerNorm2d(6).state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == {'weight': (6, ), 'bias': (6, )}


def test_wrong_channels_are_refused():
    with pytest.raises(RuntimeError, match='normalized_shape'):
        LayerNorm2d(6)(torch.rand(2, 5, 4, 4))
