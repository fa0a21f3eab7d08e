"""Command-line options that commands with a config have in common."""
import argparse
from collections.abc import Sequence

from mmengine.config import DictAction


class _KeyValues(DictAction):
    """``key=value`` pairs; anything else is a usage error and not a traceback."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Sequence[str],
                 option_string: str | None = None) -> None:
        try:
            super().__call__(parser, namespace, values, option_string)
        except (ValueError, AssertionError):
            parser.error(f'{option_string} takes key=value pairs, such as train_cfg.max_epochs=12, got {values}')


def make_parser(description: str | None, runs: bool = True, configs: str | None = None,
                first: tuple[str, str] | None = None) -> argparse.ArgumentParser:
    """A parser with the options that commands with a config have in common.

    Args:
        description: The text that ``--help`` begins with.
        runs: Whether the command trains or tests, and so has a work dir and a launcher.
        configs: As argparse's ``nargs``, for commands that take several configs.
        first: Name and help of an argument before the config.
    """
    parser = argparse.ArgumentParser(description=description)
    if first:
        parser.add_argument(first[0], help=first[1])
    parser.add_argument('config', nargs=configs, help='config file of mmdet, mmseg or mmpretrain; package::path is one '
                        'that a package brings along, as in mmpretrain::resnet/resnet50_8xb32_in1k.py')
    parser.add_argument('--cfg-options', nargs='+', action=_KeyValues, metavar='KEY=VALUE',
                        help='override settings of the config, e.g. train_dataloader.batch_size=4 or key="[a,b]"')
    if not runs:
        parser.set_defaults(work_dir=None, launcher='none', local_rank=0)
        return parser
    parser.add_argument('--work-dir', help='folder of logs and results (default: work_dirs/CONFIG)')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    # torch.distributed.launch passes this one; torchrun sets LOCAL_RANK instead
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser
