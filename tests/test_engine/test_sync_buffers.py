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


@pytest.mark.parametrize('train_cfg, interval, when', [
    (dict(by_epoch=True, max_epochs=3, val_interval=2), 1, [2, 4, 6]),
    (dict(by_epoch=False, max_iters=7, val_interval=3), 2, [2, 3, 4, 6, 7]),
])
def test_before_evaluation_and_checkpoint(tmp_path, monkeypatch, train_cfg, interval, when):
    averaged = []

    def other_process_has_ten_more(buffers, op):
        for buffer in buffers:
            averaged.append(int(buffer))
            buffer += 10 * (op == 'mean')

    monkeypatch.setattr(sync_buffers, 'all_reduce_params', other_process_has_ten_more)
    data = dict(batch_size=2, num_workers=0, dataset=[dict(x=torch.ones(1))] * 4,
                sampler=dict(type='DefaultSampler', shuffle=False), collate_fn=dict(type='pseudo_collate'))
    runner = Runner(
        Model(), str(tmp_path), experiment_name=tmp_path.name, log_level='ERROR', train_dataloader=data,
        val_dataloader=data, val_cfg=dict(), val_evaluator=[Seen()], train_cfg=train_cfg,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.)),
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', by_epoch=train_cfg['by_epoch'], interval=interval)),
        custom_hooks=[dict(type='plugconv_mm.SyncBuffersHook')])
    runner.train()
    # the buffer as it was when it was averaged: the iterations so far, and ten for each average before
    assert averaged == [count + 10 * i for i, count in enumerate(when)]
    last = torch.load(next(tmp_path.glob('*_[37].pth')), weights_only=False)['state_dict']
    assert float(last['seen']) == when[-1] + 10 * len(when)
