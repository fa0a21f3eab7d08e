"""Evaluate a checkpoint of mmdet, mmseg or mmpretrain, with what plugconv_mm plugs in."""
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import mmengine
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

from plugconv_mm.checkpoint.state_dict import split_entry
from plugconv_mm.errors import CheckpointNotFoundError, ConfigError
from plugconv_mm.runtime.build_runner import build_runner
from plugconv_mm.runtime.check_data import check_data
from plugconv_mm.runtime.config_parts import evaluators_of
from plugconv_mm.runtime.config_tree import type_name
from plugconv_mm.runtime.defaults import set_pretrain_dataloaders
from plugconv_mm.runtime.half_precision import predict_in_half_precision
from plugconv_mm.runtime.options import make_parser
from plugconv_mm.runtime.read_config import load_config
from plugconv_mm.runtime.tta import set_tta
from plugconv_mm.runtime.user_errors import plain_errors
from plugconv_mm.runtime.weights import CheckFitHook


def parse_args(argv: Sequence[str] | None = None) -> Namespace:
    parser = make_parser(__doc__)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', help='write the predictions: a .pkl file (mmdet, mmpretrain) or a folder of label '
                        'maps (mmseg)')
    parser.add_argument('--out-item', choices=['pred', 'metrics'], default='pred',
                        help='what --out holds; metrics are written as .json or .pkl')
    parser.add_argument('--show', action='store_true', help='show the predictions in a window')
    parser.add_argument('--show-dir', help='write images of the predictions into this folder')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds that --show leaves each image')
    parser.add_argument('--amp', action='store_true', help='half precision under autocast: bfloat16 on a CPU, float16 '
                        'on a GPU')
    parser.add_argument('--faster-coco', action='store_true', help='compute COCO figures with faster-coco-eval: the '
                        'same digits in a part of the time')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    return parser.parse_args(argv)


def set_visualization(cfg: Config, args: Namespace, scope: str | None) -> None:
    """Have the predictions shown, or drawn into files."""
    if scope == 'mmpretrain':  # whose own hook draws one image of 5000
        cfg.setdefault('default_hooks', ConfigDict()).visualization = dict(
            type='plugconv_mm.DrawClassesHook', out_dir=args.show_dir, show=args.show, wait_time=args.wait_time)
        return
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise ConfigError("--show and --show-dir need default_hooks.visualization in the config, such as "
                          "dict(type='DetVisualizationHook') or dict(type='SegVisualizationHook')")
    hook.update(show=args.show, wait_time=args.wait_time, interval=1)  # mmsegmentation 1.2.2 draws one batch in fifty
    hook.draw = True
    if args.show_dir and scope == 'mmseg':
        cfg.visualizer.save_dir = args.show_dir
    elif args.show_dir:
        hook.test_out_dir = args.show_dir


def set_faster_coco(cfg: Config) -> None:
    """Have faster-coco-eval compute the figures of every CocoMetric."""
    evaluators = [evaluator for _, evaluator in evaluators_of(cfg, 'test_evaluator')
                  if type_name(evaluator.get('type')) == 'CocoMetric']
    if not evaluators:
        raise ConfigError('--faster-coco needs a CocoMetric in test_evaluator; this config has none')
    for evaluator in evaluators:
        evaluator.type = 'plugconv_mm.FasterCocoMetric'


def merge(cfg: Config, args: Namespace) -> None:
    """Put the options that only testing has into the config."""
    scope = cfg.get('default_scope')
    if '://' not in args.checkpoint and not Path(split_entry(args.checkpoint)[0]).is_file():
        raise CheckpointNotFoundError(f'there is no checkpoint {args.checkpoint}')
    cfg.load_from = args.checkpoint
    cfg.resume = False
    if args.show or args.show_dir:
        set_visualization(cfg, args, scope)
    if args.faster_coco:
        set_faster_coco(cfg)
    if args.tta:
        set_tta(cfg, scope)
    if args.out:
        suffixes = ('.json', '.pkl', '.pickle') if args.out_item == 'metrics' else ('.pkl', '.pickle')
        if args.out_item == 'pred' and scope == 'mmseg':
            evaluators_of(cfg, 'test_evaluator')[0][1].update(output_dir=args.out, keep_results=True)
        elif not args.out.endswith(suffixes):
            raise ConfigError(f'--out {args.out} should end in {" or ".join(suffixes)}')
    set_pretrain_dataloaders(cfg)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with plain_errors('test.py'):
        cfg = load_config(args)
        merge(cfg, args)
        check_data(cfg, 'test_dataloader')
        runner = build_runner(cfg)
        if args.out and args.out_item == 'pred' and cfg.get('default_scope') != 'mmseg':
            if cfg.get('default_scope') == 'mmdet':
                from mmdet.evaluation import DumpDetResults as DumpResults
            else:
                from mmengine.evaluator import DumpResults
            runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))
        if isinstance(runner, Runner):  # where the model is sharded, its strategy looks
            runner.register_hook(CheckFitHook())
        if args.amp:
            predict_in_half_precision(runner.model)
        metrics = runner.test()
        if args.out and args.out_item == 'metrics' and runner.rank == 0:
            mmengine.dump(metrics, args.out)


if __name__ == '__main__':
    main()
