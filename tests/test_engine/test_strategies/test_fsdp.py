"""Models that are sharded over processes train as they do in one."""
import json
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmengine')

import families  # noqa: E402
from mmengine.config import Config, ConfigDict  # noqa: E402
from mmengine.runner import Runner  # noqa: E402
from tiny_training import in_two_processes  # noqa: E402

from plugconv_mm.checkpoint import read_checkpoint  # noqa: E402
from plugconv_mm.engine.hooks import DynamicSparsityHook  # noqa: E402
from plugconv_mm.errors import ConfigError  # noqa: E402
from plugconv_mm.runtime import dry_run, shrink_config  # noqa: E402
from plugconv_mm.runtime.build_runner import build_runner  # noqa: E402
from plugconv_mm.runtime.options import make_parser  # noqa: E402
from plugconv_mm.runtime.read_config import load_config  # noqa: E402
from plugconv_mm.runtime.user_errors import explain  # noqa: E402
from plugconv_mm.visualization import read_scalars  # noqa: E402

ROOT = Path(__file__).parents[3]


one_process = pytest.fixture(families.one_process)


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.slow
def test_every_family(tmp_path, float64):
    """Half of the parameters in each process; the same losses, weights, momenta and groups as without."""
    models = {family: families.model_of(family) for family in families.FAMILIES}
    models['recomputed'] = families.model_of('hornet', with_cp=True)
    in_two_processes(families.shard_as, tmp_path, models)
    for name, (of_both, weights, optimizer) in torch.load(tmp_path / 'sharded.pth').items():
        losses, expected, whole = families.train_alone(models[name])
        (one, one_size), (two, two_size) = of_both
        torch.testing.assert_close((torch.tensor(one) + torch.tensor(two)) / 2, torch.tensor(losses), msg=name)
        torch.testing.assert_close(weights, expected, rtol=1e-6, atol=1e-9, msg=lambda m, name=name: f'{name}: {m}')
        named = [n for group in optimizer['param_groups'] for n in group['params']]
        assert one_size + two_size == sum(expected[n].numel() for n in named) and abs(one_size - two_size) < 50, name
        assert [[group['weight_decay'], len(group['params'])] for group in optimizer['param_groups']] == [
            [group['weight_decay'], len(group['params'])] for group in whole['param_groups']]
        assert {group['weight_decay'] for group in whole['param_groups']} == {0., 0.1}
        for number, n in enumerate(named):
            torch.testing.assert_close(optimizer['state'][n], whole['state'][number], rtol=1e-6, atol=1e-9)


def moments(checkpoint):
    """In the order of the groups; parameters have names where they were sharded, and numbers where they were not."""
    optimizer = checkpoint['optimizer']
    return [optimizer['state'][param] for group in optimizer['param_groups'] for param in group['params']]


@pytest.mark.slow
def test_runs(tmp_path):
    """The run of one process, resumed bit-exactly, and checkpoints that sharded runs and others can go on from."""
    build_runner(families.run_config(tmp_path / 'one')).train()
    in_two_processes(families.run_sharded, tmp_path)
    build_runner(families.run_config(tmp_path / 'from_sharded', resume=True,
                                     load_from=str(tmp_path / 'whole/iter_2.pth'))).train()
    ends = {name: read_checkpoint(tmp_path / f'{name}/iter_6.pth') for name in (
        'one', 'whole', 'again', 'from_one', 'from_sharded')}
    torch.testing.assert_close(ends['again']['state_dict'], ends['whole']['state_dict'], rtol=0, atol=0)
    torch.testing.assert_close(moments(ends['again']), moments(ends['whole']), rtol=0, atol=0)
    for name in ('whole', 'from_one', 'from_sharded'):
        torch.testing.assert_close(moments(ends[name]), moments(ends['one']), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(ends[name]['state_dict'], ends['one']['state_dict'], rtol=1e-4, atol=1e-6)
        assert [group['lr'] for group in ends[name]['optimizer']['param_groups']] == [
            group['lr'] for group in ends['one']['optimizer']['param_groups']]
        assert ends[name]['optimizer']['base_param_settings']['lr'] == pytest.approx(
            ends['one']['optimizer']['base_param_settings']['lr'])
        for figure in ('grad_norm', 'lr', 'accuracy'):
            values, whole = (read_scalars(tmp_path / run)[figure] for run in (name, 'one'))
            assert values == [(step, pytest.approx(value, rel=1e-4)) for step, value in whole[-len(values):]], figure
    assert len(read_scalars(tmp_path / 'whole')['accuracy']) == 3


@pytest.mark.slow
def test_the_config(tmp_path, monkeypatch):
    """HorNet-L in a Cascade Mask R-CNN: half in each process; one process reads the checkpoint and evaluates alike."""
    pytest.importorskip('mmdet')
    monkeypatch.chdir(ROOT)
    config = 'configs/hornet/cascade-mask-rcnn_hornet-large-gf_fpn_fsdp-ms-480-800-3x_coco.py'
    dry_run.build_data(tmp_path / 'data')
    in_two_processes(families.dry_run_sharded, tmp_path, config, tmp_path / 'data')
    work_dir = tmp_path / Path(config).stem
    assert len(read_scalars(work_dir)['loss']) == 1  # all four images at once
    cfg = load_config(make_parser('').parse_args([config, '--work-dir', str(tmp_path / 'test')]))
    shrink_config.leave_out_weights(cfg)
    shrink_config.make_small(cfg, tmp_path / 'data')
    cfg.load_from = (work_dir / 'last_checkpoint').read_text()
    runner = build_runner(cfg)
    metrics = runner.val()
    for name, value in metrics.items():
        assert read_scalars(work_dir)[name][-1][1] == pytest.approx(value, abs=1e-3), name
    runner.model.load_state_dict(read_checkpoint(cfg.load_from)['state_dict'])  # all of it, and nothing else
    one, two = json.loads((tmp_path / 'held.json').read_text())
    total = sum(p.numel() for p in runner.model.parameters())
    assert one + two == total > 2.5e8 and one < 0.51 * total


SHARDED = dict(runner_type='FlexibleRunner', strategy=dict(type='plugconv_mm.FSDPStrategy'))


def test_averages_need_whole_weights(tmp_path, one_process):
    cfg = families.run_config(tmp_path, **SHARDED)
    cfg.launcher, cfg.custom_hooks = 'pytorch', [dict(type='EMAHook')]
    with pytest.raises(ConfigError, match='EMAHook averages whole weights'):
        build_runner(cfg)


def test_sparsity_needs_whole_weights(tmp_path):
    class FullyShardedDataParallel:
        pass

    with pytest.raises(NotImplementedError) as error:
        DynamicSparsityHook().before_train(ConfigDict(model=FullyShardedDataParallel()))
    assert explain(error.value) == str(error.value) and 'whole parameters' in str(error.value)


def test_parameters_stay_what_they_are():
    from plugconv_mm.engine.strategies import FSDPStrategy
    with pytest.raises(ValueError, match='use_orig_params=True'):
        FSDPStrategy(model_wrapper=dict(use_orig_params=False))


def test_weights_that_do_not_fit_are_named(tmp_path, one_process, monkeypatch):
    from plugconv_mm.engine.strategies import FSDPStrategy
    monkeypatch.setenv('LOCAL_RANK', '0')
    strategy = FSDPStrategy(work_dir=str(tmp_path), experiment_name='misfit', log_kwargs=dict(log_level='ERROR'))
    strategy.prepare(families.model_of('hornet'))
    state = {name: tensor + 1 for name, tensor in strategy.model_state_dict().items()}
    whole, _ = dict(state), state.pop('head.weight')
    state.update({'head.bias': torch.zeros(7), 'more': torch.zeros(1)})
    with pytest.raises(RuntimeError, match='missing: head.weight; unexpected: more; of another shape: head.bias$'):
        strategy.load_model_state_dict(state, strict=True)
    strategy.load_model_state_dict({f'module.{name}': tensor for name, tensor in state.items()})
    loaded = strategy.model_state_dict()
    torch.testing.assert_close({name: loaded[name] - int(not name.startswith('head.')) for name in loaded},
                               {name: tensor - 1 for name, tensor in whole.items()})


def test_one_process_shards_nothing(tmp_path):
    file = tmp_path / 'cfg.py'
    file.write_text(Config(families.run_config(tmp_path, **SHARDED)).pretty_text)
    assert isinstance(build_runner(load_config(make_parser('').parse_args([str(file)]))), Runner)
