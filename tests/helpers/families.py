"""Every family of backbones, small, and trainings of them by one process and by two that share the model."""
import copy
import json
from pathlib import Path

import tiny_training
import torch
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS
from torch import nn
from torch.utils.data import Dataset

from plugconv_mm.runtime import shrink_config
from plugconv_mm.runtime.build_runner import build_runner
from plugconv_mm.runtime.defaults import make_resumable
from plugconv_mm.runtime.distributed import leave_group
from plugconv_mm.runtime.options import make_parser
from plugconv_mm.runtime.read_config import load_config

CONVNEXT = dict(channels=[8, 16, 24, 32], depths=[1, 1, 2, 1])
FAMILIES = {  # the backbone, and the channels of its four features
    'hornet': (dict(type='HorNet', layer_scale_init=1., arch=dict(
        channels=[8, 16, 32, 64], depths=[1, 1, 2, 1], orders=[2, 3, 4, 5], filters=['7x7', '7x7', 'gf', 'gf'],
        filter_sizes=[(14, 8)] * 3 + [(7, 4)])), (8, 16, 32, 64)),
    'parc-resnet': (dict(type='ParCResNet', base_channels=8), (32, 64, 128, 256)),
    'parc-mobilenetv2': (dict(type='ParCMobileNetV2', widen_factor=0.25), (8, 8, 24, 1280)),
    'parc-convnext': (dict(type='ParCConvNeXt', arch=CONVNEXT, parc_blocks=(0, 0, 1, 0), layer_scale_init=1.),
                      (8, 16, 24, 32)),
    'parcnet': (dict(type='ParCNet', arch=dict(depths=[2, 1, 1], inner_channels=[16, 16, 32],
                                               mixer_channels=[24, 16, 16])), (64, 96, 128, 160)),
    'slak': (dict(type='SLaK', arch=CONVNEXT, kernel_size=(31, 29, 13, 5), width_factor=1., layer_scale_init=1.),
             (8, 16, 24, 32)),
    'kw-resnet': (dict(type='KWResNet', depth=18, cell_num_ratio=0.25, cell_inplane_ratio=0.5,
                       cell_outplane_ratio=0.5), (64, 128, 256, 512)),
    'kw-mobilenetv2': (dict(type='KWMobileNetV2', widen_factor=0.25), (8, 8, 24, 1280)),
    'kw-convnext': (dict(type='KWConvNeXt', layer_scale_init=1., arch=dict(
        channels=[16, 32, 64, 128], depths=[1, 1, 2, 1])), (16, 32, 64, 128)),
    'transcnn': (dict(type='TransCNN', head_width=8, arch=dict(
        depths=[1, 1, 2, 1], channels=[8, 16, 24, 32], expand_ratios=[2, 2, 3, 3])), (8, 16, 24, 32)),
    'hat-net': (dict(type='HATNet', arch=dict(
        depths=[1, 1, 2, 1], channels=[8, 16, 24, 32], head_widths=[8] * 4, expand_ratios=[2, 2, 3, 3],
        kernel_sizes=[3] * 4)), (8, 16, 24, 32)),
}


@MODELS.register_module()
class Pooled(BaseModel):
    """A backbone whose features, pooled, decide between three classes."""

    def __init__(self, backbone, channels):
        super().__init__()
        self.backbone = MODELS.build(backbone)
        self.head = nn.Linear(sum(channels), 3)

    def forward(self, inputs, data_samples, mode='loss'):
        logits = self.head(torch.cat([x.mean((2, 3)) for x in self.backbone(inputs)], 1))
        if mode == 'loss':
            return dict(loss=nn.functional.cross_entropy(logits, data_samples))
        return [dict(right=int(r)) for r in logits.argmax(1) == data_samples]


def model_of(family, **changes):
    """The config of a classifier, which treats each image by itself."""
    backbone, channels = FAMILIES[family]
    return dict(type='Pooled', channels=channels, backbone=backbone | dict(
        type=f'plugconv_mm.{backbone["type"]}', norm_eval=True, out_indices=(0, 1, 2, 3)) | changes)


def images(side=64):
    generator = torch.Generator().manual_seed(1)
    return dict(inputs=torch.randn(4, 3, side, side, generator=generator), data_samples=torch.tensor([0, 1, 2, 0]))


OPTIM_WRAPPER = dict(
    optimizer=dict(type='SGD', lr=1e-4, momentum=0.9, weight_decay=0.1),
    paramwise_cfg=dict(norm_decay_mult=0., bias_decay_mult=0., flat_decay_mult=0.))


def train_alone(cfg, steps=3):
    """Losses, weights and groups of the optimizer after some steps of one process on all images."""
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    model.init_weights()
    model.train()
    wrapper = build_optim_wrapper(model, copy.deepcopy(OPTIM_WRAPPER))
    losses = [float(model.train_step(images(), wrapper)['loss']) for _ in range(steps)]
    return losses, model.state_dict(), wrapper.optimizer.state_dict()


def one_process():
    """For ``pytest.fixture``: a group of this process alone."""
    torch.distributed.init_process_group('gloo', store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def shard_as(rank, folder, port, models):
    """One of two processes that share models, with half of the images each; the first leaves what came of it."""
    from plugconv_mm.engine.strategies import FSDPStrategy
    tiny_training.join(rank, port)
    torch.set_default_dtype(torch.float64)
    half = {key: value[2 * rank:2 * rank + 2] for key, value in images().items()}
    results = {}
    for name, cfg in models.items():
        strategy = FSDPStrategy(work_dir=f'{folder}/{rank}', experiment_name=name, log_kwargs=dict(log_level='ERROR'),
                                env_kwargs=dict(launcher='pytorch', randomness=dict(seed=0)))
        strategy.prepare(cfg, optim_wrapper=copy.deepcopy(OPTIM_WRAPPER))
        model = strategy.model.train()
        losses = [float(model.train_step(half, strategy.optim_wrapper)['loss']) for _ in range(3)]
        of_both = [None, None]
        torch.distributed.all_gather_object(of_both, (losses, sum(p.numel() for p in model.parameters())))
        results[name] = of_both, strategy.model_state_dict(), strategy.optim_state_dict()
    if rank == 0:
        torch.save(results, f'{folder}/sharded.pth')
    leave_group()


# Whole runs


@DATASETS.register_module()
class StillImages(Dataset):
    """Images of noise, each with a label of its own."""

    def __len__(self):
        return 12

    def __getitem__(self, i):
        generator = torch.Generator().manual_seed(i)
        return dict(inputs=torch.randn(3, 32, 32, generator=generator), data_samples=i % 3)


def run_config(work_dir, **changes):
    """Six iterations of four images each, a checkpoint and an evaluation after every second."""
    cfg = tiny_training.config(by_epoch=False)
    cfg.update(
        model=model_of('hornet'), custom_hooks=[dict(type='plugconv_mm.SyncBuffersHook'),
                                                dict(type='plugconv_mm.CheckFiniteHook')],
        train_cfg=dict(by_epoch=False, max_iters=6, val_interval=2), work_dir=str(work_dir), launcher='none',
        experiment_name=str(work_dir), **changes)
    cfg.custom_imports.imports.append('families')
    cfg.env_cfg = dict()
    cfg.default_hooks.checkpoint.interval = 2
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset = dict(type='StillImages')
    cfg.optim_wrapper.optimizer.eps = 1e-3  # that the rounding of tiny gradients does not count
    cfg.optim_wrapper.update(
        constructor='plugconv_mm.LearningRateDecayOptimWrapperConstructor', clip_grad=dict(max_norm=0.5),
        paramwise_cfg=dict(decay_rate=0.5, decay_type='layer_wise', num_layers=4))
    make_resumable(cfg)
    return cfg


def run_sharded(rank, folder, port):
    """One of two processes: a whole run, one that goes on from its first checkpoint, and one from an unsharded one."""
    tiny_training.join(rank, port)
    for name, start in (('whole', None), ('again', 'whole'), ('from_one', 'one')):
        cfg = run_config(f'{folder}/{name}', runner_type='FlexibleRunner',
                         strategy=dict(type='plugconv_mm.FSDPStrategy'))
        cfg.launcher, cfg.train_dataloader.batch_size = 'pytorch', 2
        if start:
            cfg.resume, cfg.load_from = True, f'{folder}/{start}/iter_2.pth'
        build_runner(cfg).train()
    leave_group()


def dry_run_sharded(rank, folder, port, config, data):
    """One of two processes that train a config of ours, small, for two iterations, and evaluate it."""
    tiny_training.join(rank, port, alone=True)
    args = ['--work-dir', f'{folder}/{Path(config).stem}', '--launcher', 'pytorch']
    cfg = load_config(make_parser('').parse_args([config, *args]))
    shrink_config.leave_out_weights(cfg)
    shrink_config.make_small(cfg, data)
    make_resumable(cfg)
    runner = build_runner(cfg)
    runner.train()
    held = [None, None]
    torch.distributed.all_gather_object(held, sum(p.numel() for p in runner.model.parameters()))
    if rank == 0:
        Path(folder, 'held.json').write_text(json.dumps(held))
    leave_group()
