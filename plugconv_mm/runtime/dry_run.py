"""Dry run of a config: all that it says, on mini data sets and at a small size, in seconds."""
import gc
import logging
import math
import os
import time
import traceback
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from plugconv_mm.datasets import build_digits, build_distant_cue, build_mini
from plugconv_mm.errors import UserError
from plugconv_mm.runtime.build_runner import build_runner, is_sharded
from plugconv_mm.runtime.check_data import check_data
from plugconv_mm.runtime.defaults import set_pretrain_dataloaders
from plugconv_mm.runtime.options import make_parser
from plugconv_mm.runtime.read_config import load_config
from plugconv_mm.runtime.registry_errors import config_errors
from plugconv_mm.runtime.shrink_config import leave_out_weights, make_small
from plugconv_mm.runtime.user_errors import explain

STAGES = ('config', 'data', 'build', 'train', 'evaluate', 'checkpoint', 'resume')


@dataclass
class DryRunReport:
    """Outcome of a dry run.

    Attributes:
        config: The file.
        failed: The stage that failed, one of ``STAGES``.
        error: The message that it failed with.
        missing_weights: Weights that the config starts from and that are not on this machine.
        whole: Whether the config shards the model, which one process does not.
        losses: Losses of the training iterations.
        metrics: Figures of the evaluator.
        parameters: Number of the model's parameters.
        seconds: Duration.
    """
    config: str
    failed: str | None = None
    error: str = ''
    missing_weights: list[str] = field(default_factory=list)
    whole: bool = False
    losses: list[float] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    parameters: int = 0
    seconds: float = 0.


class DryRunError(UserError, RuntimeError):
    """A stage that ran to its end and did not do what it should."""


def build_data(root: str | Path) -> None:
    """Build the mini data sets and a few digits, laid out under ``root`` as the configs look for them."""
    build_mini(root)
    build_digits(Path(root) / 'digits', num_train=4, num_val=2, log=lambda line: None)
    build_distant_cue(Path(root) / 'distant_cue', num_train=4, num_val=2)


def dry_run(config: str | Path, data: str | Path, work_dir: str | Path) -> DryRunReport:
    """Run a config through every stage.

    Args:
        config: The file.
        data: A folder of :func:`build_data`; it stands for the folder ``data``.
        work_dir: The folder of logs and checkpoints.

    Returns:
        How far it got. Errors are not raised, but for KeyboardInterrupt and the like.
    """
    report, start = DryRunReport(str(config)), time.perf_counter()
    watch = _Watch(report)
    try:
        with config_errors():
            _dry_run(report, watch, data, work_dir)
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        report.failed, report.error = watch.stage, explain(error) or f'{type(error).__name__}: {error}'
    report.seconds = time.perf_counter() - start
    return report


def dry_run_apart(config: str | Path, data: str | Path, work_dir: Path, sender: Connection) -> None:
    """Dry run in a process of its own, whose output goes to ``log.txt`` and whose checkpoints do not stay.

    Args:
        config: The file.
        data: A folder of :func:`build_data`.
        work_dir: The folder of logs and checkpoints.
        sender: The end of a pipe that the report is sent into.
    """
    with open(work_dir / 'log.txt', 'w') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    logging.root.handlers.clear()
    report = dry_run(config, data, work_dir)
    for path in work_dir.glob('*.pth'):
        path.unlink()
    report.error = report.error[:1000]
    sender.send(report)


def _dry_run(report: DryRunReport, watch: '_Watch', data: str | Path, work_dir: str | Path) -> None:

    def prepare(longer: int) -> Config:
        cfg = load_config(make_parser('').parse_args([report.config, '--work-dir', str(work_dir)]))
        report.missing_weights = leave_out_weights(cfg)
        make_small(cfg, data, longer)
        set_pretrain_dataloaders(cfg)
        return cfg

    cfg = prepare(longer=0)
    watch.stage = 'data'
    check_data(cfg, 'train_dataloader', 'val_dataloader')
    watch.stage = 'build'
    report.whole = is_sharded(cfg)
    runner = build_runner(cfg)
    report.parameters = sum(p.numel() for p in runner.model.parameters())
    runner.register_hook(watch, 'LOWEST')
    runner.train()
    watch.stage = 'train'
    if len(report.losses) != 2 or not all(map(math.isfinite, report.losses)):
        raise DryRunError(f'two finite losses were expected, got {report.losses}')
    watch.stage = 'evaluate'
    if cfg.get('val_dataloader') and not report.metrics:
        raise DryRunError('the evaluator returned nothing')
    watch.stage = 'checkpoint'
    if not Path((Path(work_dir) / 'last_checkpoint').read_text()).is_file():
        raise DryRunError('there is no checkpoint')
    watch.stage = 'resume'
    rates = runner.optim_wrapper.get_lr()
    del runner
    gc.collect()

    cfg = prepare(longer=1)
    cfg.resume = True
    runner = build_runner(cfg)
    again = _Watch(DryRunReport(report.config))
    runner.register_hook(again, 'LOWEST')
    runner.train()
    if again.first != (2, rates):
        raise DryRunError(f'training should go on from iteration 2 at the learning rates {rates}, it did from '
                             f'iteration {again.first[0]} at {again.first[1]}')
    if not again.report.losses or not all(map(math.isfinite, again.report.losses)):
        raise DryRunError(f'finite losses were expected, got {again.report.losses}')


class _Watch(Hook):
    """Notes the stage a runner is in, and what comes out of it."""

    def __init__(self, report: DryRunReport) -> None:
        self.report = report
        self.stage = 'config'
        self.first: tuple[int, dict[str, list]] | None = None  # iteration and learning rates at the start

    def before_train(self, runner: Runner) -> None:
        self.stage = 'train'

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        self.stage = 'train'
        if self.first is None:
            self.first = runner.iter, runner.optim_wrapper.get_lr()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        self.report.losses.append(float(outputs['loss']))

    def before_val(self, runner: Runner) -> None:
        self.stage = 'evaluate'

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        self.report.metrics = dict(metrics or {})

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self.stage = 'checkpoint'
