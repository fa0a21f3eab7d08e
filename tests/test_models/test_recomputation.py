"""Blocks that are recomputed in the backward pass: outputs, gradients and buffers are those of one computation."""
import pytest
import torch
import torch.distributed as dist
from torch import nn

pytest.importorskip('mmcv')

from recomputation import BACKBONES, NORMS, build, images, loss, outcome, recompute_in_two_processes  # noqa: E402
from tiny_training import in_two_processes  # noqa: E402

from plugconv_mm.ops.residual_block import ResidualBlock  # noqa: E402


def assert_same(results):
    torch.testing.assert_close(*results, rtol=0, atol=0)


@pytest.mark.parametrize('backbone, norm', [
    *[('parc-resnet', norm) for norm in NORMS],
    *[(backbone, norm) for backbone in BACKBONES for norm in ('SyncBN', 'running') if backbone != 'parc-resnet']])
def test_recomputation_is_not_seen(backbone, norm):
    results = []
    for with_cp in (False, True):
        model = build(BACKBONES[backbone], NORMS[norm], with_cp)
        # Both batches are seen before the first backward pass.
        outs = [*model(images(1)), *model(images(2))]
        loss(outs).backward()
        results.append(outcome(model, outs))
    assert_same(results)
    assert any(name.rpartition('.')[2] in ('running_std', 'running_mean') for name in results[0][-1]) == (
        norm in ('BN', 'BN-cumulative', 'SyncBN', 'SyncBN-cumulative', 'IN-with-statistics', 'running', 'renorm')
        or backbone == 'kw-mobilenetv2')  # whose attentions have batch norms of their own


def test_mmcvs_sync_batch_norm(monkeypatch):
    """Statistics of one process; the operator of the compiled mmcv is replaced by PyTorch's."""
    sync_bn = pytest.importorskip('mmcv.ops.sync_bn')
    dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)
    try:
        monkeypatch.setattr(sync_bn, 'SyncBatchNormFunction', OfOneProcess)
        results = []
        for with_cp in (False, True):
            model = build(BACKBONES['parc-resnet'], dict(type=sync_bn.SyncBatchNorm), with_cp)
            outs = model(images(1))
            loss(outs).backward()
            results.append(outcome(model, outs))
        assert_same(results)
        counts = {int(b) for name, b in model.named_buffers() if name.endswith('num_batches_tracked')}
        assert counts == {1}
    finally:
        dist.destroy_process_group()


class OfOneProcess:
    @staticmethod
    def apply(x, running_mean, running_var, weight, bias, momentum, eps, *_):
        return nn.functional.batch_norm(x, running_mean, running_var, weight, bias, True, momentum, eps)


def test_several_backward_passes_through_one_graph():
    results = []
    for with_cp in (False, True):
        model = build(BACKBONES['parc-resnet'], NORMS['running'], with_cp)
        outs = model(images(1))
        for out in outs:
            loss([out]).backward(retain_graph=True)
        results.append(outcome(model, outs))
    assert_same(results)


def test_buffers_survive_an_error_in_the_backward_pass():
    class Fails(ResidualBlock):
        calls = 0

        def __init__(self):
            super().__init__(0., True)
            self.norm = nn.BatchNorm2d(4)

        def _forward(self, x):
            self.calls += 1
            y = self.norm(x)
            if self.calls > 1:
                raise RuntimeError('out of memory')
            return y.exp()

    block, x = Fails(), torch.randn(2, 4, 3, 3, requires_grad=True)
    y = block(x)
    buffers = dict(block.named_buffers())
    values = {name: b.clone() for name, b in buffers.items()}
    with pytest.raises(RuntimeError, match='out of memory'):
        y.sum().backward()
    assert all(b is buffers[name] and torch.equal(b, values[name]) for name, b in block.named_buffers())


@pytest.mark.slow
def test_sync_batch_norm_in_two_processes(tmp_path):
    in_two_processes(recompute_in_two_processes, tmp_path)
    of_processes = [torch.load(tmp_path / f'{rank}.pth') for rank in range(2)]
    for results in of_processes:
        assert_same(results[::2])
        assert_same(results[1::2])
    for first, second in zip(*of_processes, strict=True):
        assert not torch.equal(first[0].mean(0), second[0].mean(0))
        torch.testing.assert_close(first[-1], second[-1])
