"""Evaluate a checkpoint of mmdet, mmseg or mmpretrain, with what plugconv_mm plugs in."""
import warnings
from copy import deepcopy
from pathlib import Path

import mmengine
from mmengine.config import ConfigDict
from mmengine.runner import Runner

from plugconv_mm.engine.launch import (
    ConfigError,
    build_runner,
    check_data,
    load_config,
    make_parser,
    plain_errors,
    set_pretrain_dataloaders,
)
from plugconv_mm.engine.weights import CheckFitHook


def parse_args(argv=None):
    parser = make_parser(__doc__)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', help='write the predictions: a .pkl file (mmdet, mmpretrain) or a folder of label '
                        'maps (mmseg)')
    parser.add_argument('--out-item', choices=['pred', 'metrics'], default='pred',
                        help='what --out holds; metrics are written as .json or .pkl')
    parser.add_argument('--show', action='store_true', help='show the predictions in a window')
    parser.add_argument('--show-dir', help='write pictures of the predictions into this folder')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds that --show leaves each picture')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    return parser.parse_args(argv)


def set_visualization(cfg, args, scope):
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise ConfigError("--show and --show-dir need default_hooks.visualization in the config, such as "
                          "dict(type='DetVisualizationHook') or dict(type='SegVisualizationHook')")
    # every batch: mmseg 1.2.2 and mmpretrain draw one in so many
    hook.update(show=args.show, wait_time=args.wait_time, interval=1)
    if scope == 'mmpretrain':
        hook.update(enable=True, out_dir=args.show_dir)
    else:
        hook.draw = True
        if args.show_dir and scope == 'mmseg':
            cfg.visualizer.save_dir = args.show_dir
        elif args.show_dir:
            hook.test_out_dir = args.show_dir


def _evaluators(cfg):
    return [cfg.test_evaluator] if isinstance(cfg.test_evaluator, dict) else cfg.test_evaluator


def set_tta(cfg, scope):
    """Wrap the model; where the config does not say how, by a flip, as mmdet and mmpretrain do."""
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    if scope == 'mmseg' and 'tta_pipeline' not in cfg:
        raise ConfigError('--tta needs tta_model and tta_pipeline in an mmseg config')
    if 'tta_model' not in cfg:
        cfg.tta_model = dict(type='mmpretrain.AverageClsScoreTTA') if scope == 'mmpretrain' else dict(
            type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100))
    if 'tta_pipeline' not in cfg:
        pipeline = deepcopy(dataset.pipeline)
        pack = deepcopy(pipeline[-1])
        if scope == 'mmdet':
            pack.meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')
        flips = [dict(type='RandomFlip', prob=1.), dict(type='RandomFlip', prob=0.)]
        pipeline[-1] = dict(type='TestTimeAug', transforms=[flips, [pack]])
        cfg.tta_pipeline = pipeline
    with_masks = [evaluator for evaluator in _evaluators(cfg) if 'segm' in evaluator.get('metric', '')]
    if scope == 'mmdet' and with_masks:
        warnings.warn('mmdet merges the boxes of test-time augmentation, not the masks: box AP only', stacklevel=2)
        for evaluator in with_masks:
            evaluator.metric = 'bbox'
        if 'mask_head' in cfg.model.get('roi_head', {}):
            cfg.model.roi_head.update(mask_head=None, mask_roi_extractor=None)
    dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


def merge(cfg, args):
    """Put the options that only testing has into the config."""
    scope = cfg.get('default_scope')
    if '://' not in args.checkpoint and not Path(args.checkpoint).is_file():
        raise ConfigError(f'there is no checkpoint {args.checkpoint}')
    cfg.load_from = args.checkpoint
    cfg.resume = False
    if args.show or args.show_dir:
        set_visualization(cfg, args, scope)
    if args.tta:
        set_tta(cfg, scope)
    if args.out:
        suffixes = ('.json', '.pkl', '.pickle') if args.out_item == 'metrics' else ('.pkl', '.pickle')
        if args.out_item == 'pred' and scope == 'mmseg':
            _evaluators(cfg)[0].update(output_dir=args.out, keep_results=True)
        elif not args.out.endswith(suffixes):
            raise ConfigError(f'--out {args.out} should end in {" or ".join(suffixes)}')
    set_pretrain_dataloaders(cfg)


def main(argv=None):
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
        metrics = runner.test()
        if args.out and args.out_item == 'metrics' and runner.rank == 0:
            mmengine.dump(metrics, args.out)


if __name__ == '__main__':
    main()
