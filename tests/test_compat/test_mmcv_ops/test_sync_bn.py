"""mmcv's synchronised batch normalisation, in one process."""
import sys

import pytest
import torch
import torch.nn.functional as F
from mmcv_operators import mmcv, random, with_gradients  # noqa: F401


def normalise(x, weight, bias, mode):
    """mmcv's layer asks for a process group; its function does not."""
    mean, var = torch.zeros(4), torch.ones(4)
    out = sys.modules['mmcv.ops.sync_bn'].SyncBatchNormFunction.apply(x, mean, var, weight, bias, .1, 1e-5, None, 1,
                                                                      mode)
    return with_gradients(out, x, weight, bias), mean, var


@pytest.mark.parametrize('mode', ['default', 'N'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_is_batch_normalisation(mode, dtype, bridged):
    weight = torch.tensor([.5, 1., 2., -1.], requires_grad=True)
    bias = torch.tensor([0., 1., -1., 3.], requires_grad=True)
    x = random(3, 4, 5, 2, dtype=dtype)
    got, mean, var = normalise(x, weight, bias, mode)
    exact, expected_mean, expected_var = x.detach().float().requires_grad_(), torch.zeros(4), torch.ones(4)
    want = with_gradients(F.batch_norm(exact, expected_mean, expected_var, weight, bias, True), exact, weight, bias)
    tolerance = 2e-2 if dtype == torch.float16 else 1e-5
    for value, expected in zip(got, want, strict=True):
        torch.testing.assert_close(value.float(), expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close([mean, var], [expected_mean, expected_var])


def test_nothing_in_nothing_out(bridged):
    x, weight, bias = torch.zeros(0, 4, 3, 3, requires_grad=True), torch.ones(4), torch.zeros(4)
    (out, *slopes), mean, var = normalise(x, weight.requires_grad_(), bias.requires_grad_(), 'N')
    assert out.shape == slopes[0].shape == x.shape
    assert torch.equal(mean, torch.zeros(4)) and torch.equal(var, torch.ones(4))
