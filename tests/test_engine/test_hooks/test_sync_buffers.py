"""The buffers are averaged ahead of what reads them, and not after each iteration."""
import pytest
import torch

mmengine = pytest.importorskip('mmengine')

from mmengine.evaluator import BaseMetric  # noqa: E402
from mmengine.model import BaseModel  # noqa: E402
from mmengine.runner import Runner  # noqa: E402
from torch import nn  # noqa: E402

import plugconv_mm  # noqa: E402, F401
from plugconv_mm.engine.hooks import sync_buffers  # noqa: E402


class Model(BaseModel):
    """Its buffer counts the training iterations."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.register_buffer('seen', torch.zeros(1))

    def forward(self, x, mode):
        if mode == 'loss':
            self.seen += 1
            return dict(loss=(self.weight * torch.stack(list(x))).mean())
        return [float(self.seen)]


class Seen(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results += data_samples

    def compute_metrics(self, results):
        return dict(seen=results[0])


BY_EPOCH = dict(by_epoch=True, max_epochs=3, val_interval=2)  # of two iterations each
BY_ITER = dict(by_epoch=False, max_iters=7, val_interval=3)


def run(folder, train_cfg, checkpoint, *hooks):
    data = dict(batch_size=2, num_workers=0, dataset=[dict(x=torch.ones(1))] * (4 if train_cfg['by_epoch'] else 14),
                sampler=dict(type='DefaultSampler', shuffle=False), collate_fn=dict(type='pseudo_collate'))
    runner = Runner(
        Model(), str(folder), experiment_name=folder.name, log_level='ERROR', train_dataloader=data,
        val_dataloader=data, val_cfg=dict(), val_evaluator=[Seen()], train_cfg=train_cfg,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', **checkpoint)),
        custom_hooks=[dict(type='plugconv_mm.SyncBuffersHook'), *hooks])
    runner.train()
    return runner


@pytest.mark.parametrize('train_cfg, checkpoint, when', [
    (BY_EPOCH, dict(by_epoch=True, interval=1), [2, 4, 6]),
    (BY_ITER, dict(by_epoch=False, interval=2), [2, 3, 4, 6, 7]),
    (BY_ITER, dict(by_epoch=False, interval=3, save_begin=2, save_last=False), [2, 3, 5, 6, 7]),
    (BY_ITER | dict(dynamic_intervals=[(5, 1)]), dict(by_epoch=False, interval=7), [3, 4, 5, 6, 7]),
    # within the epoch, too, and again with its end
    (BY_EPOCH, dict(by_epoch=False, interval=3), [2, 3, 4, 6, 6]),
    (BY_EPOCH, dict(by_epoch=False, interval=5, save_last=False), [2, 4, 5, 6]),
])
def test_before_evaluation_and_checkpoint(tmp_path, monkeypatch, train_cfg, checkpoint, when):
    averaged, evaluated = [], []

    def other_process_has_ten_more(buffers, op):
        for buffer in buffers:
            averaged.append(int(buffer))
            buffer += 10 * (op == 'mean')

    monkeypatch.setattr(sync_buffers, 'all_reduce_params', other_process_has_ten_more)
    monkeypatch.setattr(Seen, 'compute_metrics', lambda self, results: evaluated.append(results[0]) or dict(seen=0))
    run(tmp_path, train_cfg, checkpoint)
    # the buffer as it was when it was averaged: the iterations so far, and ten for each average before
    assert averaged == [count + 10 * i for i, count in enumerate(when)]
    saved = [float(torch.load(path, weights_only=False)['state_dict']['seen']) for path in tmp_path.glob('*.pth')]
    fresh = {averages + 10 for averages in averaged}
    assert saved and evaluated and {*saved, *evaluated} <= fresh


@pytest.mark.parametrize('train_cfg', [BY_EPOCH, BY_ITER], ids=['epochs', 'iterations'])
@pytest.mark.parametrize('priority', ['ABOVE_NORMAL', 'NORMAL', 'LOW'])
@pytest.mark.parametrize('update_buffers', [False, True])
def test_those_of_averaged_weights(tmp_path, monkeypatch, train_cfg, priority, update_buffers):
    """What is evaluated, and goes on, and is saved is the same in all processes."""
    evaluated = []

    def all_agree(buffers, op):
        for buffer in buffers:
            buffer.fill_(100.)

    monkeypatch.setattr(sync_buffers, 'all_reduce_params', all_agree)
    monkeypatch.setattr(Seen, 'compute_metrics', lambda self, results: evaluated.append(results[0]) or dict(seen=0))
    run(tmp_path, train_cfg, dict(by_epoch=train_cfg['by_epoch'], interval=1 if train_cfg['by_epoch'] else 3),
        dict(type='EMAHook', priority=priority, update_buffers=update_buffers, momentum=0.1))
    saved = [torch.load(path, weights_only=False) for path in tmp_path.glob('*.pth')]
    assert len(saved) == 3 and set(evaluated) == {100.}
    assert {float(checkpoint['state_dict']['seen']) for checkpoint in saved} == {100.}
    assert {float(checkpoint['ema_state_dict']['module.seen']) for checkpoint in saved} == {100.}
    assert sorted(int(checkpoint['ema_state_dict']['steps']) for checkpoint in saved) == (
        [2, 4, 6] if train_cfg['by_epoch'] else [3, 6, 7])  # not averaged: it counts
