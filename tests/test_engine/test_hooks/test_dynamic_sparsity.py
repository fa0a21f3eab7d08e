import pytest
import torch

pytest.importorskip('mmengine')

import tiny_training  # noqa: E402
from mmengine.hooks import Hook  # noqa: E402

from plugconv_mm.checkpoint import read_checkpoint, write_checkpoint  # noqa: E402
from plugconv_mm.engine.hooks import DynamicSparsityHook  # noqa: E402
from plugconv_mm.ops.sparse_masks import cosine_prune_rate, erk_counts, unpack_mask  # noqa: E402


class Watch(Hook):
    """Calls a function with the runner and the sparsity hook after every iteration, before anything is logged."""

    priority = 'VERY_HIGH'

    def __init__(self, look):
        self.look = look

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.look(runner, hook_of(runner))


def hook_of(runner):
    return next(hook for hook in runner.hooks if isinstance(hook, DynamicSparsityHook))


def config(by_epoch=True, optim=None, keep=(), **sparsity):
    cfg = tiny_training.config(by_epoch)
    cfg.custom_hooks[0].update(update_frequency=2, **sparsity)
    cfg.custom_hooks = [cfg.custom_hooks[0], *(h for h in cfg.custom_hooks[1:] if h.type in keep)]
    cfg.optim_wrapper.update(optim or {})
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    return cfg


def runner(folder, look=None, **options):
    built = tiny_training.build(folder, config(**options))
    if look:
        built.register_hook(Watch(look))
    return built


def parameters(runner):
    return dict(runner.model.named_parameters())


def moments(runner, name):
    parameter = parameters(runner)[name]
    return [v for v in runner.optim_wrapper.optimizer.state[parameter].values()
            if torch.is_tensor(v) and v.shape == parameter.shape]


def assert_masked(runner, hook):
    for name, mask in hook.masks.items():
        for tensor in (parameters(runner)[name], *moments(runner, name)):
            assert not tensor[~mask].any(), name


BIG = {'stem.weight', 'stages.0.0.large_kernel.vertical.conv.weight', 'stages.0.0.large_kernel.horizontal.conv.weight',
       'stages.0.0.large_kernel.small_conv.conv.weight', 'stages.0.0.pwconv.weight', 'dynamic.attention.fc1.weight',
       'dynamic.attention.fc2.weight', 'head.weight'}


# First masks


def test_snip_on_the_first_batch(tmp_path):
    """Densities are those of |weight · gradient| on the first batch, computed here by hand."""
    seen = {}

    class First(Hook):
        priority = 'VERY_HIGH'

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if runner.iter == 0:
                seen.update(batch=data_batch, state={k: v.clone() for k, v in runner.model.state_dict().items()})

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            if runner.iter == 0:
                seen['counts'] = {name: int(mask.sum()) for name, mask in hook_of(runner).masks.items()}

    built = runner(tmp_path)
    built.model.drop.p = 0.
    built.register_hook(First())
    built.train()
    model = tiny_training.TinyNet()
    model.drop.p = 0.
    model.load_state_dict(seen['state'])
    model(**model.data_preprocessor(seen['batch'], True), mode='loss')['loss'].backward()
    scores = {name: (model.get_parameter(name) * model.get_parameter(name).grad).abs() for name in BIG}
    flat = torch.cat([score.flatten() for score in scores.values()])
    threshold = flat.sort(descending=True).values[round(0.6 * flat.numel()) - 1]
    wanted = {name: int((score >= threshold).sum()) for name, score in scores.items()}
    assert seen['counts'] == {name: n for name, n in wanted.items() if n < 0.99 * scores[name].numel()}


def test_snip_leaves_the_batch_statistics_alone(tmp_path):
    built = runner(tmp_path)
    tracked = []
    built.register_hook(Watch(lambda runner, hook: tracked.append(
        int(runner.model.state_dict()['stages.0.0.large_kernel.vertical.bn.num_batches_tracked']))))
    built.train()
    assert tracked == list(range(1, 10))


@pytest.mark.parametrize('sparse_init, sparsity', [('uniform', 0.4), ('erk', 0.4), ('erk', 0.8)])
def test_densities(tmp_path, sparse_init, sparsity):
    built = runner(tmp_path, sparse_init=sparse_init, sparsity=sparsity)
    built.train()
    shapes = {name: p.shape for name, p in built.model.named_parameters() if p.dim() in (2, 4)}
    assert set(shapes) == BIG
    counts = {name: int(mask.sum()) for name, mask in hook_of(built).masks.items()}
    if sparse_init == 'uniform':
        assert all(abs(counts[name] - (1 - sparsity) * shape.numel()) <= 0.5 for name, shape in shapes.items())
    else:
        wanted = dict(zip(shapes, erk_counts(list(shapes.values()), 1 - sparsity), strict=True))
        assert counts == {name: n for name, n in wanted.items() if n < 0.99 * shapes[name].numel()}
        assert sum(wanted.values()) == round((1 - sparsity) * sum(s.numel() for s in shapes.values()))


@pytest.mark.parametrize('options, expected', [
    (dict(only_large_kernel=True), {name for name in BIG if 'large_kernel' in name}),
    (dict(module='dynamic'), {name for name in BIG if name.startswith('dynamic.')}),
    (dict(module='stages.0.0'), {name for name in BIG if name.startswith('stages.0.0.')}),
    (dict(module='stages.0.0', only_large_kernel=True), {name for name in BIG if 'large_kernel' in name}),
])
def test_which_parameters(tmp_path, options, expected):
    built = runner(tmp_path, sparse_init='uniform', **options)
    built.train()
    assert set(hook_of(built).masks) == expected
    assert (parameters(built)['head.weight'] != 0).all()


def test_frozen_parameters_are_left_alone(tmp_path):
    built = runner(tmp_path)
    built.model.stem.requires_grad_(False)
    built.train()
    assert 'stem.weight' not in hook_of(built).masks and (built.model.stem.weight != 0).all()


# Training


@pytest.mark.parametrize('growth', ['random', 'gradient'])
def test_updates(tmp_path, growth):
    """The active count of a layer never changes; what grows starts at 0 and is dropped where it is smallest."""
    states = []

    def look(runner, hook):
        assert_masked(runner, hook)
        states.append(({name: m.clone() for name, m in hook.masks.items()},
                       {name: p.detach().clone() for name, p in parameters(runner).items()}))

    runner(tmp_path, look, growth=growth, prune_rate=0.5).train()
    assert len(states) == 9
    first = {name: int(mask.sum()) for name, mask in states[0][0].items()}
    for number in range(1, 9):
        masks, weights = states[number]
        assert {name: int(mask.sum()) for name, mask in masks.items()} == first
        update = (number + 1) % 2 == 0
        assert update == any(not torch.equal(mask, states[number - 1][0][name]) for name, mask in masks.items())
        for name, mask in masks.items():
            before = states[number - 1][0][name]
            assert not weights[name][mask & ~before].any()
            if update:
                count = round(cosine_prune_rate(number + 1, 9, 0.5) * first[name])
                assert (mask & (weights[name] == 0)).sum() == count  # all that grew, where something was dropped too
                assert (before & ~mask).sum() <= count


def test_dropped_are_the_smallest_and_grown_have_the_largest_gradient(tmp_path, monkeypatch):
    from plugconv_mm.engine.hooks import dynamic_sparsity
    calls = []

    def spy(weight, mask, count, generator=None, gradient=None):
        kept, new = drop_and_grow(weight, mask, count, generator, gradient)
        calls.append((weight.detach().clone(), mask, count, gradient.clone(), kept, new))
        return kept, new

    drop_and_grow = dynamic_sparsity.drop_and_grow
    monkeypatch.setattr(dynamic_sparsity, 'drop_and_grow', spy)
    built = runner(tmp_path, growth='gradient')
    built.train()
    assert len(calls) == 4 * len(hook_of(built).masks)
    for weight, mask, count, gradient, kept, new in calls:
        assert gradient.abs().max() > 0 and weight[mask].abs().max() > 0
        if count:
            assert weight[mask & ~kept].abs().max() <= weight[kept].abs().min()
            assert gradient[new & ~kept].abs().min() >= gradient[~new].abs().max()


OPTIMIZERS = {
    'SGD': dict(optimizer=dict(_delete_=True, type='SGD', lr=0.1, momentum=0.9, weight_decay=0.01)),
    'nesterov': dict(optimizer=dict(_delete_=True, type='SGD', lr=0.1, momentum=0.9, nesterov=True)),
    'AdamW': {},
    'amsgrad': dict(optimizer=dict(_delete_=True, type='AdamW', lr=0.01, amsgrad=True)),
    'accumulated': dict(accumulative_counts=2),
    'clipped': dict(clip_grad=dict(max_norm=0.1)),
    'bfloat16': dict(type='AmpOptimWrapper', dtype='bfloat16'),
    'bfloat16 accumulated': dict(type='AmpOptimWrapper', dtype='bfloat16', accumulative_counts=2),
}


@pytest.fixture
def amp_on_cpu(monkeypatch):
    """mmengine lets AmpOptimWrapper be built with an accelerator only; autocast itself works on a CPU."""
    from mmengine.optim.optimizer import amp_optimizer_wrapper
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)


@pytest.mark.parametrize('optim', list(OPTIMIZERS))
def test_no_optimizer_revives_a_masked_weight(tmp_path, amp_on_cpu, optim):
    wrapper = dict(OPTIMIZERS[optim])
    if '_delete_' in wrapper.get('optimizer', {}):
        wrapper['optimizer'] = {k: v for k, v in wrapper['optimizer'].items() if k != '_delete_'}
    looked = []

    def look(runner, hook):
        assert_masked(runner, hook)
        looked.append(sum(len(moments(runner, name)) for name in hook.masks))
        for p in runner.model.parameters():
            assert torch.isfinite(p).all()

    built = runner(tmp_path, look, optim=wrapper)
    if 'bfloat16' in optim:
        seen = []
        built.model.head.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    built.train()
    hook = hook_of(built)
    assert hook.step == (5 if 'accumulated' in optim else 9)
    per_layer = {'SGD': 1, 'nesterov': 1, 'amsgrad': 3}.get(optim, 2)
    assert len(looked) == 9 and looked[-1] == per_layer * len(hook.masks)
    if 'bfloat16' in optim:
        assert seen.pop(0) == torch.float32 and set(seen) == {torch.bfloat16}  # SNIP, then training


def test_a_step_that_the_gradient_scaler_skips_is_none(tmp_path, amp_on_cpu):
    steps = []
    built = runner(tmp_path, lambda runner, hook: steps.append(hook.step),
                   optim=dict(type='AmpOptimWrapper', dtype='bfloat16'))
    built.optim_wrapper = built.build_optim_wrapper(built.optim_wrapper)
    built.optim_wrapper.loss_scaler = torch.amp.GradScaler('cpu', init_scale=2.**16)
    built.model.head.weight.register_hook(lambda gradient: gradient / bool(steps))  # infinite in the first iteration
    built.train()
    assert steps == list(range(9)) and built.optim_wrapper.loss_scaler.get_scale() == 2.**15


def test_averaged_weights_are_sparse(tmp_path):
    built = runner(tmp_path, keep=['EMAHook'])
    built.train()
    checkpoint = read_checkpoint(tmp_path / 'epoch_3.pth')
    weights, averages = checkpoint['ema_state_dict'], checkpoint['state_dict']  # EMAHook has them the other way round
    for name, mask in hook_of(built).masks.items():
        assert not averages[name][~mask].any() and averages[name][mask].any()
        assert not torch.equal(weights['module.' + name], averages[name])


def test_log(tmp_path):
    from plugconv_mm.visualization import read_scalars
    built = runner(tmp_path, growth='random', sparse_init='uniform')
    built.train()
    curves = read_scalars(tmp_path)
    groups = {name.removeprefix('density/') for name in curves if name.startswith('density/')}
    assert groups == {'stem', 'stages.0.large_kernel', 'stages.0.pwconv', 'dynamic.attention.fc1',
                      'dynamic.attention.fc2', 'head', 'all'}
    assert [i for i, _ in curves['density/all']] == [0, 2, 4, 6, 8]
    for group in groups:
        assert all(abs(value - 0.6) < 0.05 for _, value in curves[f'density/{group}'])
    turnover, overlap = (dict(curves[f'{name}/all']) for name in ('turnover', 'first_mask_overlap'))
    assert turnover[0] == 0 and 0 < turnover[2] < 0.5 and overlap[0] == 1
    assert overlap[2] == pytest.approx(1 - turnover[2]) and overlap[8] < overlap[2]
    assert len(curves['loss']) == 9


# Checkpoints


def same(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize('growth', ['random', 'gradient'])
@pytest.mark.parametrize('by_epoch', [True, False])
def test_resume_is_bit_exact(tmp_path, growth, by_epoch):
    """With dropout, random images, averages and schedules, from a checkpoint between two updates and from one at."""
    cfg = config(by_epoch, keep=['EMAHook', 'plugconv_mm.KernelWarehouseTemperatureHook'], growth=growth)
    name = 'epoch_{}.pth' if by_epoch else 'iter_{}.pth'
    first, second, last = (name.format(i) for i in ((1, 2, 3) if by_epoch else (3, 6, 9)))
    tiny_training.build(tmp_path / 'whole', cfg).train()
    for at in (first, second):
        tiny_training.resume(tmp_path / at, cfg, tmp_path / 'whole' / at).train()
        tiny_training.assert_same_ends(tmp_path / at / last, tmp_path / 'whole' / last)


def test_a_sparse_checkpoint_loads_in_a_dense_model(tmp_path):
    built = runner(tmp_path)
    built.train()
    dense = tiny_training.TinyNet()
    checkpoint = read_checkpoint(tmp_path / 'epoch_3.pth')
    dense.load_state_dict(checkpoint['state_dict'])
    x, y = torch.rand(2, 2, 8, 8), torch.tensor([0, 1])
    assert dense.eval()(x, y, 'predict') == built.model.eval()(x, y, 'predict')
    state = checkpoint['dynamic_sparsity']
    for name, packed in state['masks'].items():
        assert torch.equal(unpack_mask(packed, dense.get_parameter(name).shape), hook_of(built).masks[name])


def test_fine_tuning_keeps_the_zeros(tmp_path):
    runner(tmp_path / 'sparse').train()
    source = read_checkpoint(tmp_path / 'sparse' / 'epoch_3.pth')['state_dict']
    write_checkpoint(source, tmp_path / 'weights.pth')  # weights alone, as they are published
    zeros = {name: source[name] == 0 for name in BIG if (source[name] == 0).float().mean() > 0.01}

    def with_a_new_part(built):
        built.model.stages.add_module('new', torch.nn.Conv2d(16, 16, 1))
        torch.nn.init.zeros_(built.model.stages.new.weight)
        return built

    fine_tuning = config(sparse_init='loaded', module='stages')
    tuned = with_a_new_part(tiny_training.build(
        tmp_path / 'tuned', fine_tuning | dict(load_from=str(tmp_path / 'weights.pth'))))
    tuned.train()
    assert 'stages.new.weight' not in hook_of(tuned).masks  # zeros to start from
    assert len(zeros) >= 5
    for name, p in tuned.model.named_parameters():
        if name in zeros and name.startswith('stages.'):
            assert torch.equal(p == 0, zeros[name]) and not torch.equal(p, source[name])
        elif name in zeros:  # not asked for
            assert p[zeros[name]].any()
    assert hook_of(tuned).step == 9
    resumed = with_a_new_part(tiny_training.resume(
        tmp_path / 'resumed', fine_tuning, tmp_path / 'tuned' / 'epoch_1.pth'))
    resumed.train()
    same(dict(resumed.model.state_dict()), dict(tuned.model.state_dict()))


def test_fine_tuning_of_dense_weights_is_dense_and_said(tmp_path, monkeypatch):
    said = []
    built = runner(tmp_path / 'dense', sparse_init='loaded')
    monkeypatch.setattr(built.logger, 'warning', said.append)
    built.train()
    assert [line for line in said if 'no zeros to keep: this training is dense' in line]
    assert not hook_of(built).masks and (built.model.head.weight != 0).all()
    tiny_training.resume(tmp_path / 'resumed', config(sparse_init='loaded'), tmp_path / 'dense/epoch_2.pth').train()


# Mistakes


@pytest.mark.parametrize('options, message', [
    (dict(sparse_init='ERK'), "sparse_init must be one of snip, erk, uniform, loaded, got 'ERK'"),
    (dict(growth='momentum'), "growth must be one of random, gradient, got 'momentum'"),
    (dict(sparsity=1), 'sparsity must be between 0 and 1, got 1'),
    (dict(prune_rate=0), 'prune_rate must be between 0 and 1, got 0'),
    (dict(update_frequency=0), 'update_frequency must be a positive number'),
])
def test_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        DynamicSparsityHook(**options)


@pytest.mark.parametrize('options, message', [
    (dict(module='backbone'), "no module 'backbone'; it has data_preprocessor, stem, stages"),
    (dict(module='drop'), 'found nothing to make sparse'),
    (dict(module='head', only_large_kernel=True), 'large kernels, of which there are none'),
    (dict(sparse_init='uniform', sparsity=0.005), 'sparsity of 0.005 leaves every layer dense'),
])
def test_what_the_model_cannot_have(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        runner(tmp_path, **options).train()


def test_resuming_from_other_checkpoints(tmp_path):
    cfg = tiny_training.config()
    cfg.custom_hooks = []
    tiny_training.build(tmp_path / 'dense', cfg).train()
    with pytest.raises(ValueError, match='has no masks'):
        tiny_training.resume(tmp_path / 'resumed', config(), tmp_path / 'dense' / 'epoch_1.pth').train()
    runner(tmp_path / 'sparse').train()
    with pytest.raises(ValueError, match='for other parameters'):
        tiny_training.resume(tmp_path / 'other', config(module='head'), tmp_path / 'sparse' / 'epoch_1.pth').train()


# Processes


@pytest.mark.slow
@pytest.mark.parametrize('growth', ['random', 'gradient'])
def test_two_processes_agree(tmp_path, growth):
    tiny_training.in_two_processes(tiny_training.train_as, tmp_path, growth)
    first, second = (torch.load(tmp_path / f'rank{rank}.pth') for rank in (0, 1))
    assert len(first['masks']) == len(second['masks']) == 9
    same(first['masks'], second['masks'])
    assert any(not torch.equal(mask, first['masks'][0][name]) for name, mask in first['masks'][-1].items())
    for name in BIG:
        same(first['model'][name], second['model'][name])
