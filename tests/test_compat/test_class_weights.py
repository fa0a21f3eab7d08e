"""mmseg's cross entropy with weights of classes, where some pixels are ignored."""
import pytest
import torch
import torch.nn.functional as F


@pytest.mark.parametrize('ignored', [0, 7, 24])
def test_ignored_pixels_are_left_out(ignored):
    """The mean is that of torch: over the weights of the pixels that are not ignored; nothing where all are."""
    losses = pytest.importorskip('mmseg.models.losses')
    torch.manual_seed(0)
    pred, label = torch.randn(1, 3, 4, 6, requires_grad=True), torch.randint(3, (1, 4, 6))
    label.view(-1)[:ignored] = 255
    weights = [0.2, 1.0, 3.0]
    loss = losses.CrossEntropyLoss(class_weight=weights)(pred, label, ignore_index=255)
    expected = F.cross_entropy(pred, label, torch.tensor(weights), ignore_index=255)
    torch.testing.assert_close(loss, expected.nan_to_num())
    assert torch.autograd.grad(loss, pred)[0].isfinite().all()
