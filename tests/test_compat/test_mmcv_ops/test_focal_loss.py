"""Focal loss of sigmoids and of a softmax."""
import pytest
import torch
from mmcv_operators import mmcv, random, standard_tests, with_gradients

TARGETS = [0, 2, 3, 1, 3, -1]  # 3 classes; 3 is background, as is any number that is no class


def focal_case(gamma, alpha, weighted, reduction, dtype=torch.float64, device='cpu'):
    x = (random(6, 3, dtype=dtype, device=device, grad=False) * 4).requires_grad_()
    target = torch.tensor(TARGETS, device=device)
    weight = torch.tensor([.5, 1., 3.], dtype=dtype, device=device) if weighted else None
    if weighted:  # mmcv's kernels read beyond the weights for a row of no class
        x, target = x[:4].detach().requires_grad_(), target[[0, 1, 3, 1]]
    return with_gradients(mmcv.ops.sigmoid_focal_loss(x, target, gamma, alpha, weight, reduction), x)


def focal_reference(gamma, alpha, weighted, reduction):
    x = (random(6, 3, grad=False) * 4).requires_grad_()
    target = TARGETS
    if weighted:
        x, target = x[:4].detach().requires_grad_(), [0, 2, 1, 2]
    rows = []
    for row, label in zip(x, target, strict=True):
        p = 1 / (1 + (-row).exp())
        entries = [-alpha * (1 - p[c])**gamma * p[c].log() if c == label else
                   -(1 - alpha) * p[c]**gamma * (1 - p[c]).log() for c in range(3)]
        rows.append(torch.stack(entries) * ([.5, 1., 3.][label] if weighted else 1))
    loss = torch.stack(rows)
    loss = dict(none=loss, sum=loss.sum(), mean=loss.sum() / len(loss))[reduction]
    return with_gradients(loss, x)


def softmax_focal_case(gamma, weighted, reduction, dtype=torch.float64, device='cpu'):
    x = random(4, 3, dtype=dtype, device=device)
    weight = torch.tensor([.5, 1., 3.], dtype=dtype, device=device) if weighted else None
    target = torch.tensor([0, 2, 1, 2], device=device)
    loss = mmcv.ops.softmax_focal_loss(x, target, gamma, .3, weight, reduction)
    return with_gradients(loss, x)


def softmax_focal_reference(gamma, weighted, reduction):
    x = random(4, 3)
    loss = 0
    for row, label in zip(x, [0, 2, 1, 2], strict=True):
        hit = row[label].exp() / row.exp().sum()
        loss = loss - .3 * (1 - hit)**gamma * hit.log() * ([.5, 1., 3.][label] if weighted else 1)
    return with_gradients(loss / 4 if reduction == 'mean' else loss, x)


CASES = {
    **{f'focal-{g}-{a}-{"weighted" if w else "plain"}-{r}': (focal_case, focal_reference, (g, a, w, r))
       for g, a, w, r in [(2., .25, False, 'none'), (2., .25, True, 'mean'), (1.5, .4, True, 'none'),
                          (0., .5, False, 'sum')]},
    **{f'softmax_focal-{g}-{"weighted" if w else "plain"}-{r}': (softmax_focal_case, softmax_focal_reference, (g, w, r))
       for g, w, r in [(2., False, 'sum'), (.5, True, 'mean'), (0., False, 'mean')]},
}
test_against_plain_formulation, test_lower_precision, test_tensors_stay_on_their_device, test_on_a_gpu, \
    test_against_compiled_mmcv = standard_tests(CASES, cuda_only=('focal', 'softmax_focal'))


def test_focal_loss_far_from_zero(bridged):
    x = torch.tensor([[80., -80.], [-80., 80.]], requires_grad=True)
    loss, slope = with_gradients(mmcv.ops.sigmoid_focal_loss(x, torch.tensor([0, 0]), 2., .25, None, 'none'), x)
    torch.testing.assert_close(loss, torch.tensor([[0., 0.], [.25 * 80, .75 * 80]]))
    assert slope.isfinite().all()


def test_focal_loss_weight_leaves_background_alone(bridged):
    x, target, weight = random(2, 3), torch.tensor([3, 1]), torch.tensor([2., 5., 7.]).double()
    plain = mmcv.ops.sigmoid_focal_loss(x, target, 2., .25, None, 'none')
    weighted = mmcv.ops.sigmoid_focal_loss(x, target, 2., .25, weight, 'none')
    torch.testing.assert_close(weighted, plain * torch.tensor([[1.], [5.]]))


def test_softmax_focal_loss_at_its_ends(bridged):
    """A certain answer has neither loss nor slope, and a row with a negative target does not count."""
    x = torch.tensor([[90., -90.], [1., 2.]], dtype=torch.float64, requires_grad=True)
    for gamma in (.5, 2.):
        loss, slope = with_gradients(mmcv.ops.softmax_focal_loss(x, torch.tensor([0, -1]), gamma, .25, None, 'sum'), x)
        assert loss == 0 and torch.equal(slope, torch.zeros_like(x))


def test_nothing_in_nothing_out(bridged):
    for loss in (mmcv.ops.sigmoid_focal_loss, mmcv.ops.softmax_focal_loss):
        x, target = torch.zeros(0, 3, requires_grad=True), torch.zeros(0, dtype=torch.int64)
        total, slope = with_gradients(loss(x, target, 2., .25, None, 'sum'), x)
        assert total == 0 and slope.shape == (0, 3)


def test_bad_input(bridged):
    with pytest.raises(ValueError, match='softmax_focal_loss: a target must be a class, 0 to 2, .* got 3'):
        mmcv.ops.softmax_focal_loss(torch.rand(2, 3), torch.tensor([0, 3]), 2., .25, None, 'sum')
