"""Two runs of one seed are the same to the bit."""
import copy

import pytest
import torch

pytest.importorskip('mmengine')

import tiny_training  # noqa: E402

from plugconv_mm.checkpoint import read_checkpoint  # noqa: E402
from plugconv_mm.visualization import read_scalars  # noqa: E402


@pytest.fixture(autouse=True)
def settings_of_torch():
    """mmengine leaves them as a deterministic run has them."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    yield
    cudnn.deterministic, cudnn.benchmark = before
    torch.use_deterministic_algorithms(False)


def losses(folder, seed=0, workers=0):
    cfg = copy.deepcopy(tiny_training.config())
    cfg.randomness = dict(seed=seed, deterministic=True)
    cfg.train_dataloader.num_workers = workers
    tiny_training.build(folder, cfg).train()
    assert torch.are_deterministic_algorithms_enabled()
    return read_scalars(folder)['loss']


def test_losses_and_weights(tmp_path):
    torch.rand(7)  # what was drawn before does not count
    first, second = losses(tmp_path / 'first'), losses(tmp_path / 'second', workers=1)
    assert first == second and len(first) == 9
    a, b = (read_checkpoint(tmp_path / name / 'epoch_3.pth') for name in ('first', 'second'))
    for key in ('state_dict', 'ema_state_dict', 'optimizer', 'dynamic_sparsity'):
        torch.testing.assert_close(a[key], b[key], rtol=0, atol=0)
    assert losses(tmp_path / 'other', seed=1) != first
