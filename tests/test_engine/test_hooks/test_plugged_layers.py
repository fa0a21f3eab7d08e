"""Hooks that look for operators find those that were plugged into a model by its config."""
import pytest
import torch

pytest.importorskip('mmengine')

import tiny_training  # noqa: E402
from mmengine.hooks import EMAHook, Hook  # noqa: E402
from mmengine.registry import MODELS  # noqa: E402
from torch import nn  # noqa: E402

from plugconv_mm.checkpoint import read_checkpoint  # noqa: E402
from plugconv_mm.engine.hooks import DynamicSparsityHook  # noqa: E402
from plugconv_mm.ops import KernelWarehouse  # noqa: E402
from plugconv_mm.ops.sparse_masks import erk_counts  # noqa: E402


@MODELS.register_module()
class PlainNet(tiny_training.TinyNet):
    """The tiny network with plain convolutions in the places of its operators."""

    def __init__(self):
        super().__init__()
        self.stages[0][0]['large_kernel'] = nn.Conv2d(16, 16, 5, padding=2, groups=16)
        self.dynamic = nn.Sequential(nn.Conv2d(16, 16, 1), nn.ReLU(), nn.Conv2d(16, 16, 1))


LARGE = dict(target='re:.*large_kernel', to=dict(type='plugconv_mm.DecomposedLargeKernelConv2d', large_kernel=7))
SHARED = dict(target=r're:dynamic\.\d', to=dict(type='plugconv_mm.KWConv2d', share='stage', cell_num_ratio=1))
OWN = dict(target=r're:dynamic\.\d', to=dict(type='plugconv_mm.KWConv2d'))


def config(start, rules, hooks):
    cfg = tiny_training.config()
    cfg.model = dict(type='plugconv_mm.plug', model=dict(type='PlainNet'),
                     rules=[dict(rule, start=start) for rule in rules])
    cfg.custom_hooks = hooks
    cfg.custom_imports.imports.append('test_plugged_layers')
    return cfg


def hook_of(runner, kind):
    return next(hook for hook in runner.hooks if isinstance(hook, kind))


class Watch(Hook):
    """Notes masks, weights and temperatures after every iteration, before anything is logged."""

    priority = 'VERY_HIGH'

    def __init__(self):
        self.masks, self.temperatures = [], []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        parameters = dict(runner.model.named_parameters())
        for hook in runner.hooks:
            if isinstance(hook, DynamicSparsityHook):
                self.masks.append({name: mask.clone() for name, mask in hook.masks.items()})
                assert all(not parameters[name][~mask].any() for name, mask in hook.masks.items())
        self.temperatures.append([m.temperature for m in runner.model.modules() if isinstance(m, KernelWarehouse)])


@pytest.mark.parametrize('sparse_init', ['snip', 'erk'])
@pytest.mark.parametrize('start', ['scratch', 'residual'])
def test_sparse_training_of_plugged_large_kernels(start, sparse_init, tmp_path):
    cfg = config(start, [LARGE], [dict(
        type='plugconv_mm.DynamicSparsityHook', sparse_init=sparse_init, only_large_kernel=True, update_frequency=2),
        dict(type='EMAHook')])
    runner, watch = tiny_training.build(tmp_path / 'whole', cfg), Watch()
    runner.register_hook(watch)
    runner.train()
    where = 'stages.0.0.large_kernel.' + ('new.' if start == 'residual' else '')
    names = [f'{where}{branch}.conv.weight' for branch in ('vertical', 'horizontal', 'small_conv')]
    shapes = [runner.model.get_parameter(name).shape for name in names]
    first, last = watch.masks[0], watch.masks[-1]
    assert list(first) == names
    counts = [int(first[name].sum()) for name in names]
    total = sum(shape.numel() for shape in shapes)
    assert sum(counts) == round(0.6 * total) and all(0 < n < s.numel() for n, s in zip(counts, shapes, strict=True))
    if sparse_init == 'erk':
        assert counts == erk_counts(shapes, 0.6)
    assert counts == [int(last[name].sum()) for name in names]  # dropped and grown
    assert all((first[name] != last[name]).any() for name in names)
    average = hook_of(runner, EMAHook).ema_model.module
    assert all(not average.get_parameter(name)[~last[name]].any() for name in names)
    if start == 'residual':
        assert runner.model.stages[0][0]['large_kernel'].gamma.any()  # but for channels that relu kills
    # a resumed run goes on with them
    tiny_training.resume(tmp_path / 'resumed', cfg, tmp_path / 'whole/epoch_1.pth').train()
    tiny_training.assert_same_ends(tmp_path / 'whole/epoch_3.pth', tmp_path / 'resumed/epoch_3.pth')
    assert list(read_checkpoint(tmp_path / 'resumed/epoch_3.pth')['dynamic_sparsity']['masks']) == names


def test_ranks_of_layers_and_operators_beside_them(tmp_path):
    """Operators whose factor is zero have no gradient, and would be left with whatever weights come first."""
    runner = tiny_training.build(tmp_path, config('residual', [LARGE, OWN], [dict(
        type='plugconv_mm.DynamicSparsityHook')]))
    watch = Watch()
    runner.register_hook(watch)
    runner.train()
    masks = {name: mask for name, mask in watch.masks[0].items() if '.new.' in name and mask.numel() > 64}
    assert len(masks) >= 3 and all(0 < mask.float().mean() < 1 for mask in masks.values())


@pytest.mark.parametrize('start', ['scratch', 'residual'])
@pytest.mark.parametrize('rule, number', [(SHARED, 1), (OWN, 1)])
def test_temperature_of_plugged_layers(start, rule, number, tmp_path):
    cfg = config(start, [LARGE, rule], [dict(type='plugconv_mm.KernelWarehouseTemperatureHook', iters=5)])
    runner, watch = tiny_training.build(tmp_path, cfg), Watch()
    seen = []
    for layer in (runner.model.dynamic[0], runner.model.dynamic[2]):
        (layer.new if start == 'residual' else layer).attention.register_forward_pre_hook(
            lambda module, args: seen.append((module.training, args[1])))
    runner.register_hook(watch)
    runner.train()
    expected = [1, 0.8, 0.6, 0.4, 0.2, 0, 0, 0, 0]
    assert watch.temperatures == [pytest.approx([value] * number) for value in expected]
    assert [t for training, t in seen if training] == pytest.approx([value for value in expected for _ in range(2)])
    assert {t for training, t in seen if not training} == {0.}
    assert all(torch.isfinite(p).all() for p in runner.model.parameters())
