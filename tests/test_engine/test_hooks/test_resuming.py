"""Interrupted trainings: checkpoints are whole, and a resumed run does what the uninterrupted one would have done."""
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmengine')

import tiny_training  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.hooks import Hook  # noqa: E402
from tiny_training import assert_same_ends, resume  # noqa: E402

from plugconv_mm.checkpoint import read_checkpoint  # noqa: E402
from plugconv_mm.runtime.build_runner import build_runner  # noqa: E402
from plugconv_mm.runtime.defaults import make_resumable  # noqa: E402
from plugconv_mm.runtime.user_errors import explain  # noqa: E402
from plugconv_mm.visualization import read_scalars  # noqa: E402

ROOT = Path(__file__).parents[3]


def checkpoints(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix in ('.pth', '.part'))


# What the command line adds


def test_every_config_becomes_resumable():
    cfg = Config(dict(default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=7, save_best='auto'))))
    make_resumable(cfg)
    make_resumable(cfg)
    assert cfg.default_hooks.checkpoint == dict(type='plugconv_mm.AtomicCheckpointHook', interval=7, save_best='auto')
    assert cfg.custom_hooks == [dict(type='plugconv_mm.ResumableRandomnessHook')]
    cfg = Config(dict(custom_hooks=[dict(type='EMAHook')]))
    make_resumable(cfg)
    assert cfg.default_hooks.checkpoint == dict(type='plugconv_mm.AtomicCheckpointHook', interval=1)
    assert [hook.type for hook in cfg.custom_hooks] == ['EMAHook', 'plugconv_mm.ResumableRandomnessHook']
    cfg = Config(dict(default_hooks=dict(checkpoint=None)))
    make_resumable(cfg)
    assert cfg.default_hooks.checkpoint is None


# Randomness


class Batches(Hook):
    priority = 'VERY_HIGH'

    def __init__(self):
        self.seen = {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.seen[runner.iter] = data_batch['inputs'].clone(), torch.rand(1)


def batches(built):
    hook = Batches()
    built.register_hook(hook)
    built.train()
    if built.train_dataloader._iterator is not None:
        # left to the garbage collector, persistent workers that others were forked beside take 5 s each to end
        built.train_dataloader._iterator._shutdown_workers()
    return hook.seen


@pytest.mark.parametrize('by_epoch, workers, persistent', [
    (True, 0, False), (False, 0, False), (True, 2, True), (False, 2, True), (False, 2, False)])
def test_a_resumed_run_sees_the_same(tmp_path, by_epoch, workers, persistent):
    """The same images in the same order with the same noise, and the same randomness in the model."""
    cfg = tiny_training.config(by_epoch)
    cfg.train_dataloader.update(num_workers=workers, persistent_workers=persistent)
    whole = batches(tiny_training.build(tmp_path / 'whole', cfg))
    images = [image for inputs, _ in whole.values() for image in inputs]
    assert len(whole) == 9 and len({tuple(p.flatten().tolist()) for p in images}) == 36
    assert len({float(draw) for _, draw in whole.values()}) == 9
    for at, name in ((3, 'epoch_1'), (6, 'epoch_2')) if by_epoch else ((3, 'iter_3'), (6, 'iter_6')):
        again = batches(resume(tmp_path / name, cfg, tmp_path / f'whole/{name}.pth'))
        assert sorted(again) == list(range(at, 9))
        torch.testing.assert_close(again, {i: whole[i] for i in again}, rtol=0, atol=0)


@pytest.mark.parametrize('workers', [0, pytest.param(1, marks=pytest.mark.slow)])
def test_within_an_epoch(tmp_path, workers):
    """Checkpoints by iterations in a training by epochs: the rest of the epoch comes, and not the whole again."""
    cfg = tiny_training.config()
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=1)
    cfg.train_dataloader.num_workers = workers
    whole = batches(tiny_training.build(tmp_path / 'whole', cfg))
    for at in (2, 3, 4) if not workers else (4, ):
        again = batches(resume(tmp_path / f'{at}', cfg, tmp_path / f'whole/iter_{at}.pth'))
        torch.testing.assert_close(again, {i: whole[i] for i in range(at, 9)}, rtol=0, atol=0)
        evaluations = [[value for _, value in read_scalars(tmp_path / name)['accuracy']] for name in ('whole', f'{at}')]
        assert evaluations[1] == evaluations[0][-3 if at <= 3 else -2:]
        assert_same_ends(tmp_path / f'{at}/iter_9.pth', tmp_path / 'whole/iter_9.pth')


def test_neither_workers_nor_evaluations_matter(tmp_path):
    cfg = tiny_training.config()
    whole = batches(tiny_training.build(tmp_path / '0', cfg))
    cfg.train_dataloader.num_workers = 2
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    torch.testing.assert_close(batches(tiny_training.build(tmp_path / '2', cfg)), whole, rtol=0, atol=0)


def test_samplers_that_cannot_skip(tmp_path):
    """Of them the loop drops the batches that were trained; two rounds of the data in four iterations."""
    import time
    cfg = tiny_training.config(by_epoch=False)
    cfg.train_dataloader.sampler.type, cfg.train_dataloader.dataset.length = 'DefaultSampler', 12
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, 'sleep', lambda seconds: None)
        whole = batches(tiny_training.build(tmp_path / 'whole', cfg))
        again = batches(resume(tmp_path / 'again', cfg, tmp_path / 'whole/iter_6.pth'))
    torch.testing.assert_close(again, {i: whole[i] for i in (6, 7, 8)}, rtol=0, atol=0)


def test_without_a_seed_the_checkpoint_has_it(tmp_path):
    cfg = tiny_training.config()
    cfg.randomness = dict(seed=None)
    whole = batches(tiny_training.build(tmp_path / 'whole', cfg))
    again = batches(resume(tmp_path / 'again', cfg, tmp_path / 'whole/epoch_2.pth'))
    torch.testing.assert_close(again, {i: whole[i] for i in (6, 7, 8)}, rtol=0, atol=0)


# Checkpoints


def test_the_old_checkpoint_goes_when_the_new_one_is_there(tmp_path, monkeypatch):
    cfg = tiny_training.config()
    cfg.default_hooks.checkpoint.update(max_keep_ckpts=1, save_best='accuracy', rule='greater')
    built = tiny_training.build(tmp_path, cfg)
    seen, save = [], type(built).save_checkpoint

    def look(runner, *args, **kwargs):
        before = checkpoints(tmp_path)
        save(runner, *args, **kwargs)
        seen.append((before, checkpoints(tmp_path)))

    monkeypatch.setattr(type(built), 'save_checkpoint', look)
    monkeypatch.setattr(tiny_training.TinyAccuracy, 'compute_metrics',
                        lambda self, results: dict(accuracy=built.epoch))  # every epoch is the best so far
    built.train()
    # each epoch is saved, then as the best, then again with that noted in it
    assert seen[3] == (['best_accuracy_epoch_1.pth', 'epoch_1.pth'],
                       ['best_accuracy_epoch_1.pth', 'epoch_1.pth', 'epoch_2.pth'])
    assert seen[4] == (['best_accuracy_epoch_1.pth', 'epoch_2.pth'],
                       ['best_accuracy_epoch_1.pth', 'best_accuracy_epoch_2.pth', 'epoch_2.pth'])
    assert checkpoints(tmp_path) == ['best_accuracy_epoch_3.pth', 'epoch_3.pth']
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_3.pth')


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path):
    """The third checkpoint is larger than the disk lets a file be."""
    whole = tiny_training.build(tmp_path / 'whole', tiny_training.config())
    whole.train()
    cfg = tiny_training.config()
    cfg.default_hooks.checkpoint.max_keep_ckpts = 1
    built = tiny_training.build(tmp_path / 'full', cfg)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Fills(Hook):

        def before_save_checkpoint(self, runner, checkpoint):
            if runner.epoch == 1:
                checkpoint['more'] = torch.zeros(1000, 1000)

    built.register_hook(Fills())
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(OSError, match='epoch_2.pth was not written, what was there stays') as error:
            built.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert 'epoch_2.pth was not written' in explain(error.value)
    assert checkpoints(tmp_path / 'full') == ['epoch_1.pth']
    resume(tmp_path / 'full', cfg).train()
    assert_same_ends(tmp_path / 'full/epoch_3.pth', tmp_path / 'whole/epoch_3.pth')


def test_a_full_disk_is_said():
    import errno
    message = explain(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), 'scalars.json'))
    assert 'No space left on device' in message and 'scalars.json' in message and '--resume' in message


def test_an_unfinished_evaluation_is_done_first(tmp_path, monkeypatch):
    cfg = tiny_training.config()
    tiny_training.build(tmp_path / 'whole', cfg).train()

    def interrupted(self, results):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tiny_training.TinyAccuracy, 'compute_metrics', interrupted)
        with pytest.raises(KeyboardInterrupt):
            tiny_training.build(tmp_path / 'cut', cfg).train()
    resume(tmp_path / 'cut', cfg).train()
    whole, cut = read_scalars(tmp_path / 'whole'), read_scalars(tmp_path / 'cut')
    assert cut['accuracy'] == whole['accuracy'] and len(cut['accuracy']) == 3
    assert cut['loss'] == whole['loss']
    assert_same_ends(tmp_path / 'cut/epoch_3.pth', tmp_path / 'whole/epoch_3.pth')

    evaluated = []
    built = resume(tmp_path / 'whole', cfg)  # all is done
    built.register_hook(type('Evaluated', (Hook, ), dict(before_val=lambda self, runner: evaluated.append(1)))())
    built.train()
    assert not evaluated


def test_a_new_run_in_an_old_folder(tmp_path):
    (tmp_path / 'last_evaluation').write_text('3')
    (tmp_path / '.epoch_9.pth.17.part').write_text('half')
    built = tiny_training.build(tmp_path, tiny_training.config())

    class Look(Hook):
        priority = 'LOWEST'

        def before_train(self, runner):
            assert not (tmp_path / 'last_evaluation').exists() and not checkpoints(tmp_path)

    built.register_hook(Look())
    built.train()
    assert (tmp_path / 'last_evaluation').read_text() == '3 6 9'


class Evaluations(Hook):
    """The iterations of evaluations; it interrupts training ahead of an iteration."""

    def __init__(self, stop=None):
        self.seen, self.stop = [], stop

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.stop:
            raise KeyboardInterrupt

    def before_val(self, runner):
        self.seen.append(runner.iter)


def evaluations(built, stop=None):
    hook = Evaluations(stop)
    built.register_hook(hook)
    if stop is None:
        built.train()
    else:
        with pytest.raises(KeyboardInterrupt):
            built.train()
    return hook.seen


def plateau(by_epoch, **checkpoint):
    """Every evaluation but the first divides the learning rate by two."""
    cfg = tiny_training.config(by_epoch)
    cfg.param_scheduler = [
        dict(type='LinearLR', by_epoch=False, start_factor=0.1, end=2),
        dict(type='ReduceOnPlateauLR', monitor='accuracy', rule='greater', factor=0.5, patience=0, threshold=1.,
             threshold_rule='abs')]
    cfg.default_hooks.checkpoint.update(checkpoint)
    return cfg


@pytest.mark.parametrize('by_epoch, best', [
    (True, {}), (False, {}), (True, dict(save_best='accuracy', rule='less'))])
def test_a_schedule_that_needs_evaluations(tmp_path, by_epoch, best):
    """Interrupted after an evaluation, in its midst, and between the checkpoint after it and the record of it."""
    cfg = plateau(by_epoch, **best)
    assert evaluations(tiny_training.build(tmp_path / 'whole', cfg)) == [3, 6, 9]
    names = ['epoch_1', 'epoch_2', 'epoch_3'] if by_epoch else ['iter_3', 'iter_6', 'iter_9']
    rates = read_scalars(tmp_path / 'whole')['lr']
    assert rates[-1][1] == rates[3][1] / 2  # with the second evaluation, and the third comes after the last step
    assert all(read_checkpoint(path)['meta']['evaluated'] for path in (tmp_path / 'whole').glob('*.pth'))

    def assert_as_whole(folder):
        for figure in ('lr', 'loss', 'accuracy'):
            assert read_scalars(folder)[figure] == read_scalars(tmp_path / 'whole')[figure], figure
        assert_same_ends(folder / f'{names[-1]}.pth', tmp_path / f'whole/{names[-1]}.pth')

    assert evaluations(tiny_training.build(tmp_path / 'after', cfg), stop=6) == [3, 6]
    assert evaluations(resume(tmp_path / 'after', cfg)) == [9]
    assert_as_whole(tmp_path / 'after')

    for name, method, expected in (('midst', 'after_val_epoch', [6, 9]), ('between', '_note_evaluation', [9])):
        built = tiny_training.build(tmp_path / name, cfg)
        hook = next(hook for hook in built.hooks if type(hook).__name__ == 'AtomicCheckpointHook')
        whole = getattr(hook, method)

        def dies(*args, whole=whole, built=built, **kwargs):
            if built.iter == 6 and False not in args:
                raise KeyboardInterrupt
            whole(*args, **kwargs)

        setattr(hook, method, dies)
        with pytest.raises(KeyboardInterrupt):
            built.train()
        assert evaluations(resume(tmp_path / name, cfg)) == expected
        if name == 'between':
            assert_as_whole(tmp_path / name)
        else:  # the evaluation has been logged twice
            assert_same_ends(tmp_path / f'midst/{names[-1]}.pth', tmp_path / f'whole/{names[-1]}.pth')

    # where there is no record of it, the checkpoint tells; one whose evaluation was made up for does so, too
    assert evaluations(resume(tmp_path / 'elsewhere', cfg, tmp_path / f'midst/{names[1]}.pth'), stop=6) == []


def test_schedules_of_several_optimizers(tmp_path):
    built = tiny_training.build(tmp_path, plateau(True))

    class InADict(Hook):

        def before_train(self, runner):
            runner.param_schedulers = dict(model=runner.param_schedulers)

    built.register_hook(InADict())
    built.train()
    checkpoint = read_checkpoint(tmp_path / 'epoch_2.pth')
    assert checkpoint['meta']['evaluated'] and checkpoint['param_schedulers']['model'][1]['last_step'] == 1


def test_a_flexible_runner_saves_again(tmp_path):
    """It counts one epoch more for what is saved after the epoch."""
    cfg = plateau(True, save_best='accuracy')
    cfg.update(runner_type='FlexibleRunner', strategy=dict(type='SingleDeviceStrategy'), env_cfg=dict(),
               work_dir=str(tmp_path), experiment_name=str(tmp_path), launcher='none', custom_hooks=[])
    make_resumable(cfg)
    build_runner(Config(cfg)).train()
    for path in tmp_path.glob('*.pth'):
        meta, epoch = read_checkpoint(path)['meta'], int(path.stem[-1])
        assert (meta['epoch'], meta['iter'], meta['evaluated']) == (epoch, 3 * epoch, True)


def test_evaluations_are_not_repeated(tmp_path, monkeypatch):
    """Not of earlier checkpoints, nor of the best; those of checkpoints that took their place are not on record."""
    cfg = tiny_training.config()
    cfg.default_hooks.checkpoint.update(save_best='accuracy', rule='greater')
    monkeypatch.setattr(tiny_training.TinyAccuracy, 'compute_metrics', lambda self, results: dict(accuracy=0.5))
    assert evaluations(tiny_training.build(tmp_path / 'run', cfg)) == [3, 6, 9]
    record, best = tmp_path / 'run/last_evaluation', tmp_path / 'run/best_accuracy_epoch_1.pth'
    assert record.read_text() == '3 6 9'
    assert read_checkpoint(best)['meta']['evaluated'] and read_checkpoint(best)['meta']['iter'] == 3
    assert evaluations(resume(tmp_path / 'elsewhere', cfg, best), stop=3) == []
    assert evaluations(resume(tmp_path / 'run', cfg, tmp_path / 'run/epoch_2.pth'), stop=7) == []
    assert record.read_text() == '3 6 9'

    def interrupted(self, results):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tiny_training.TinyAccuracy, 'compute_metrics', interrupted)
        with pytest.raises(KeyboardInterrupt):  # in the evaluation of another epoch_2.pth
            resume(tmp_path / 'run', cfg, tmp_path / 'run/epoch_1.pth').train()
    assert record.read_text() == '3 9'
    assert evaluations(resume(tmp_path / 'run', cfg), stop=6) == [6]

    record.write_text('9')  # as it was once written: the last one alone
    assert evaluations(resume(tmp_path / 'run', cfg, tmp_path / 'run/epoch_3.pth')) == []


# Killed


def run(work_dir, *arguments, kill=None, processes=1, cfg=None):
    cfg_file = work_dir.parent / f'{work_dir.name}.py'
    cfg_file.write_text(Config(cfg or tiny_training.config()).pretty_text)
    environment = {**os.environ, 'PYTHONPATH': f'{ROOT}:{ROOT / "tests/helpers"}', 'TINY_KILL': kill or '',
                   'OMP_NUM_THREADS': '1', 'PYTHON': sys.executable, 'PORT': '29533'}
    command = [sys.executable, 'tools/train.py', str(cfg_file)] if processes == 1 else [
        'tools/dist_train.sh', str(cfg_file), str(processes)]
    return subprocess.run([*command, '--work-dir', str(work_dir), *arguments], cwd=ROOT, env=environment,
                          capture_output=True, text=True)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """The uninterrupted run."""
    folder = tmp_path_factory.mktemp('killed') / 'whole'
    done = run(folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize('kill, left', [
    ('step:5', ['epoch_1.pth']),
    ('step:1', []),
    ('val:5', ['epoch_1.pth', 'epoch_2.pth']),
    ('fsync:1', ['.epoch_1.pth.part']),  # the first checkpoint is written, but not in its place
    ('fsync:4', ['.epoch_2.pth.part', 'epoch_1.pth']),
    # the second is in its place, and last_checkpoint names the first
    ('replace:5', ['.last_checkpoint.part', 'epoch_1.pth', 'epoch_2.pth']),
])
def test_killed(tmp_path, whole, kill, left):
    folder = tmp_path / 'killed'
    killed = run(folder, kill=kill)
    assert killed.returncode == -9, killed.stderr[-3000:]
    assert [re.sub(r'\.\d+\.part', '.part', name) for name in checkpoints(folder)] == left
    for name in left:
        if name.endswith('.pth'):
            read_checkpoint(folder / name)
    done = run(folder, '--resume')
    assert done.returncode == 0, done.stderr[-3000:]
    assert checkpoints(folder) == checkpoints(whole)
    for figure in ('loss', 'accuracy', 'lr', 'temperature', 'density/all', 'turnover/all', 'first_mask_overlap/all'):
        assert read_scalars(folder)[figure] == read_scalars(whole)[figure], figure
    assert_same_ends(folder / 'epoch_3.pth', whole / 'epoch_3.pth')


@pytest.mark.slow
def test_two_processes_killed(tmp_path):
    for name, kill in (('whole', None), ('killed', 'step:5')):
        done = run(tmp_path / name, kill=kill, processes=2)
        assert (done.returncode == 0) == (kill is None), done.stderr[-3000:]
    done = run(tmp_path / 'killed', '--resume', processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same_ends(tmp_path / 'killed/epoch_3.pth', tmp_path / 'whole/epoch_3.pth')


@pytest.mark.slow
def test_an_error_of_the_disk_ends_in_one_message(tmp_path):
    """The folder's files may not grow beyond a few kilobytes."""
    code = ('import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, -1)); '
            "sys.argv[0] = 'tools/train.py'; runpy.run_path('tools/train.py', run_name='__main__')")
    cfg_file = tmp_path / 'cfg.py'
    cfg_file.write_text(Config(tiny_training.config()).pretty_text)
    done = subprocess.run([sys.executable, '-c', code, str(cfg_file), '--work-dir', str(tmp_path / 'work')], cwd=ROOT,
                          env={**os.environ, 'PYTHONPATH': f'{ROOT}:{ROOT / "tests/helpers"}'}, capture_output=True,
                          text=True)
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert 'train.py: error:' in done.stderr and 'epoch_1.pth was not written' in done.stderr
