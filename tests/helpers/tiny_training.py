"""A training of seconds with everything that a resumed run has to get right, and ways to interrupt it.

The model drops out and is trained on randomly changed images; a large kernel and a dynamic convolution are in it.
Where TINY_KILL says ``step:5`` the process kills itself in the fifth training step, with ``val``, ``fsync`` or
``replace`` in the fifth of these.
"""
import copy
import os
import signal
from collections import Counter

import torch
from mmengine.config import ConfigDict
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

import plugconv_mm  # noqa: F401
from plugconv_mm.checkpoint import read_checkpoint
from plugconv_mm.engine.hooks import DynamicSparsityHook
from plugconv_mm.ops import DecomposedLargeKernelConv2d, KWConv2d
from plugconv_mm.runtime.defaults import make_resumable
from plugconv_mm.runtime.distributed import distribute_on_cpu, leave_group

_count = Counter()


def die_where_asked(what):
    name, _, number = os.environ.get('TINY_KILL', '').partition(':')
    _count[what] += 1
    if what == name and _count[what] == int(number):
        os.kill(os.getpid(), signal.SIGKILL)


if os.environ.get('TINY_KILL'):
    for function in (os.fsync, os.replace):
        def dying(*args, function=function):
            die_where_asked(function.__name__)
            return function(*args)
        setattr(os, function.__name__, dying)


@DATASETS.register_module()
class TinyImages(Dataset):
    """Images of noise, other noise each time, on a level that is the label."""

    def __init__(self, length=12):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, i):
        label = i % 3
        return dict(inputs=torch.full((2, 8, 8), label / 2) + 0.1 * torch.randn(2, 8, 8), data_samples=label)


@MODELS.register_module()
class TinyNet(BaseModel):

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 16, 3, padding=1)
        self.stages = nn.ModuleList([
            nn.Sequential(nn.ModuleDict(dict(large_kernel=DecomposedLargeKernelConv2d(16, 7),
                                             pwconv=nn.Linear(16, 16)))),
        ])
        self.dynamic = KWConv2d(16, 16, 1)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(16, 3)

    def forward(self, inputs, data_samples, mode):
        die_where_asked('step' if mode == 'loss' else 'val')
        block = self.stages[0][0]
        x = block.large_kernel(self.stem(inputs).relu())
        x = self.dynamic(block.pwconv(x.permute(0, 2, 3, 1)).relu().permute(0, 3, 1, 2))
        logits = self.head(self.drop(x.mean((2, 3))))
        if mode == 'loss':
            return dict(loss=nn.functional.cross_entropy(logits, data_samples))
        return [dict(right=int(r)) for r in logits.argmax(1) == data_samples]


@METRICS.register_module()
class TinyAccuracy(BaseMetric):

    def process(self, data_batch, data_samples):
        self.results += [sample['right'] for sample in data_samples]

    def compute_metrics(self, results):
        return dict(accuracy=sum(results) / len(results))


def config(by_epoch=True, **changes):
    """Three epochs of three iterations with four images each, or nine iterations; an evaluation after every three."""
    loader = dict(batch_size=4, num_workers=0, collate_fn=dict(type='default_collate'), dataset=dict(
        type='TinyImages'), sampler=dict(type='DefaultSampler' if by_epoch else 'InfiniteSampler', shuffle=True))
    val = dict(loader, sampler=dict(type='DefaultSampler', shuffle=False))
    length = dict(max_epochs=3) if by_epoch else dict(max_iters=9, val_interval=3)
    return ConfigDict(
        model=dict(type='TinyNet'), train_dataloader=loader, val_dataloader=val, val_cfg=dict(),
        val_evaluator=dict(type='TinyAccuracy'), train_cfg=dict(by_epoch=by_epoch, **length),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.01, weight_decay=0.05)),
        param_scheduler=[dict(type='LinearLR', by_epoch=False, start_factor=0.1, end=3),
                         dict(type='CosineAnnealingLR', by_epoch=by_epoch, T_max=3 if by_epoch else 9)],
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=by_epoch),
                           checkpoint=dict(type='CheckpointHook', interval=1 if by_epoch else 3, by_epoch=by_epoch)),
        custom_hooks=[dict(type='plugconv_mm.DynamicSparsityHook', update_frequency=2),
                      dict(type='plugconv_mm.KernelWarehouseTemperatureHook', iters=5), dict(type='EMAHook')],
        custom_imports=dict(imports=['plugconv_mm', 'tiny_training']), log_level='ERROR', randomness=dict(seed=3),
        visualizer=dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]), default_scope='mmengine',
        **changes)


def build(work_dir, cfg):
    """A runner as ``tools/train.py`` builds it."""
    cfg = copy.deepcopy(cfg)
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = f'{work_dir}-{_count["runner"]}'
    _count['runner'] += 1
    make_resumable(cfg)
    return Runner.from_cfg(cfg)


def resume(work_dir, cfg, from_checkpoint=None):
    """The same, going on from a checkpoint or from the last one in the work dir."""
    cfg = copy.deepcopy(cfg)
    cfg.resume, cfg.load_from = True, from_checkpoint and str(from_checkpoint)
    return build(work_dir, cfg)


class Masks(Hook):
    """Keeps the masks of every iteration."""

    def __init__(self):
        self.seen = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        sparsity = next(hook for hook in runner.hooks if isinstance(hook, DynamicSparsityHook))
        self.seen.append({name: mask.clone() for name, mask in sparsity.masks.items()})


def in_two_processes(function, folder, *args):
    """Call ``function(rank, folder, port, *args)`` in both; the port is open from here on, so that nobody takes it."""
    store = torch.distributed.TCPStore('127.0.0.1', 0, is_master=True, wait_for_workers=False)
    torch.multiprocessing.spawn(function, (str(folder), store.port, *args), nprocs=2)


def join(rank, port, alone=False):
    """Become one of two processes; ``alone`` leaves it to others to make a group of them."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2', MASTER_ADDR='127.0.0.1',
                      MASTER_PORT=str(port), TORCHELASTIC_USE_AGENT_STORE='True')
    torch.set_num_threads(1)
    if not alone:
        torch.distributed.init_process_group('gloo')


def train_as(rank, folder, port, growth):
    """One of two processes, each with half of a batch; it leaves its masks and its model in ``rank0.pth``."""
    join(rank, port, alone=True)
    cfg = config()
    cfg.custom_hooks[0].growth = growth
    cfg.launcher, cfg.train_dataloader.batch_size = 'pytorch', 2
    distribute_on_cpu(cfg)
    cfg.randomness.diff_rank_seed = True  # masks that agree because the seeds do would not
    runner, masks = build(folder, cfg), Masks()
    runner.register_hook(masks)
    runner.train()
    torch.save(dict(masks=masks.seen, model=runner.model.module.state_dict()), f'{folder}/rank{rank}.pth')
    leave_group()


def assert_same_ends(a, b, averages=True):
    """Two checkpoints hold the same, to the bit."""
    a, b = read_checkpoint(a), read_checkpoint(b)
    for key in ('state_dict', 'optimizer', 'dynamic_sparsity', *(['ema_state_dict'] if averages else [])):
        torch.testing.assert_close(a[key], b[key], rtol=0, atol=0)
    assert a['param_schedulers'] == b['param_schedulers']
    logs = [checkpoint['message_hub']['log_scalars'] for checkpoint in (a, b)]
    for name in ('train/loss', 'train/lr'):
        assert logs[0][name].data[0].tolist() == logs[1][name].data[0].tolist()
        assert len(logs[0][name].data[0]) == a['meta']['iter']
