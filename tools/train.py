"""Train a model of mmdet, mmseg or mmpretrain, with what plugconv_mm plugs in."""
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from plugconv_mm.errors import CheckpointNotFoundError, ConfigError
from plugconv_mm.runtime.build_runner import build_runner
from plugconv_mm.runtime.check_data import check_data
from plugconv_mm.runtime.check_weights import check_weights
from plugconv_mm.runtime.config_tree import type_name
from plugconv_mm.runtime.defaults import make_resumable, set_pretrain_dataloaders
from plugconv_mm.runtime.options import make_parser
from plugconv_mm.runtime.read_config import load_config
from plugconv_mm.runtime.user_errors import plain_errors


def parse_args(argv: Sequence[str] | None = None) -> Namespace:
    parser = make_parser(__doc__)
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision (GPU)')
    parser.add_argument('--resume', nargs='?', const='auto', metavar='CHECKPOINT',
                        help='go on from this checkpoint, or from the latest one in the work dir')
    parser.add_argument('--auto-scale-lr', action='store_true',
                        help='scale the learning rate with the batch size, from auto_scale_lr.base_batch_size')
    return parser.parse_args(argv)


def merge(cfg: Config, args: Namespace) -> None:
    """Put the options that only training has into the config."""
    if args.amp:
        kind = cfg.optim_wrapper.get('type', 'OptimWrapper')
        if type_name(kind) not in ('OptimWrapper', 'AmpOptimWrapper'):
            raise ConfigError(f'--amp goes with optim_wrapper type OptimWrapper, and this config has {type_name(kind)}')
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise ConfigError('--auto-scale-lr needs auto_scale_lr = dict(base_batch_size=...) in the config')
        cfg.auto_scale_lr.enable = True
    if args.resume is not None:
        if args.resume != 'auto' and '://' not in args.resume and not Path(args.resume).is_file():
            raise CheckpointNotFoundError(f'there is no checkpoint {args.resume} to resume from')
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    make_resumable(cfg)
    set_pretrain_dataloaders(cfg, persistent_workers=True)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with plain_errors('train.py'):
        cfg = load_config(args)
        merge(cfg, args)
        check_data(cfg, 'train_dataloader', 'val_dataloader')
        if not cfg.get('resume'):
            check_weights(cfg)
        build_runner(cfg).train()


if __name__ == '__main__':
    main()
