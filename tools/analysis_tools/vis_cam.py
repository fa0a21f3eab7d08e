"""Grad-CAM of classifiers, detectors and segmentors: each image beside the map of every model, as a grid.

What is explained is the score of a class: of a classifier for the image, of a detector for a box, of a segmentor for
where it sees the class. Give the baseline first.
"""
import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from mmengine.utils import ProgressBar
from torch import Tensor

from plugconv_mm.analysis.grad_cam import box_score, class_score, grad_cam, region_score
from plugconv_mm.datasets.image_files import find_images, read_image
from plugconv_mm.errors import ConfigError
from plugconv_mm.runtime.build import build_task, check_device
from plugconv_mm.runtime.config_parts import first_test_dataset, metainfo_of
from plugconv_mm.runtime.options import make_parser
from plugconv_mm.runtime.read_config import load_config
from plugconv_mm.runtime.user_errors import plain_errors
from plugconv_mm.runtime.weights import load_weights


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__, runs=False, configs='+')
    parser.add_argument('--images', required=True, metavar='PATH', help='an image, or a folder of images')
    parser.add_argument('--num', type=int, default=8, help='images of the folder at most (default: 8)')
    parser.add_argument('--checkpoint', nargs='+', metavar='FILE', help='weights, one file for each config; none means '
                        'random weights (default: all random)')
    parser.add_argument('--class', dest='category', metavar='CLASS', help='name of a class, or its index from 0; of a '
                        'classifier by default the one that the first model finds')
    parser.add_argument('--box', nargs=4, type=float, metavar=('X1', 'Y1', 'X2', 'Y2'),
                        help='for detectors, in pixels of the image')
    parser.add_argument('--layer', nargs='+', metavar='NAME', help='module whose map explains the score, one for all '
                        'configs or one for each (default: the last map of the backbone)')
    parser.add_argument('--names', nargs='+', help='of the models, in the image')
    parser.add_argument('--device', default='cpu', help='cpu (default), cuda, cuda:1')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/cam.png'), metavar='FILE.png',
                        help='default: work_dirs/cam.png')
    args = parser.parse_args(argv)
    for name in ('checkpoint', 'names', 'layer'):
        given = getattr(args, name)
        if given and len(given) != len(args.config) and not (name == 'layer' and len(given) == 1):
            parser.error(f'--{name} takes one for each of the {len(args.config)} configs, got {len(given)}')
    if args.num < 1:
        parser.error(f'--num should be at least 1, got {args.num}')
    if args.box and not (0 <= args.box[0] < args.box[2] and 0 <= args.box[1] < args.box[3]):
        parser.error(f'--box takes X1 Y1 X2 Y2 with X1 < X2 and Y1 < Y2, got {args.box}')
    if args.out.suffix != '.png':
        parser.error(f'--out should end in .png, got {args.out}')
    return args


class Model:
    """A model of a config, the images as its test pipeline makes them, and the names of its classes."""

    def __init__(self, config: str, checkpoint: str, args: argparse.Namespace) -> None:
        self.config = config
        self.cfg = load_config(argparse.Namespace(**{**vars(args), 'config': config}))
        torch.manual_seed(0)
        self.model, self.task = build_task(self.cfg, config)
        if self.task == 'backbone':
            raise ConfigError(f'{config} is a backbone alone, which scores no class')
        dataset, steps = first_test_dataset(self.cfg, config)
        meta = {} if checkpoint == 'none' else load_weights(self.model, checkpoint)
        self.model.to(args.device)
        scope = self.cfg.get('default_scope')
        with DefaultScope.overwrite_default_scope(scope):
            self.pipeline = Compose(steps)
        known = meta.get('dataset_meta') or {}, metainfo_of(dataset, scope), {'classes': meta.get('CLASSES')}
        self.classes = next((list(item['classes']) for item in known if item.get('classes')), [])

    def category(self, text: str) -> int:
        """The index of a class."""
        if text in self.classes:
            return self.classes.index(text)
        if not text.isdigit():
            said = ', '.join(self.classes[:12]) + ', ...' * (len(self.classes) > 12)
            raise ConfigError(f'{self.config} knows no class {text}' + (f'; it knows {said}' if said else '; give its '
                                                                        'index, as the names are not known'))
        return int(text)

    def inputs(self, file: Path) -> tuple[np.ndarray, Tensor, tuple[float, float]]:
        """The image that the model is shown, RGB; the tensor that it takes; and how far it was scaled, (x, y)."""
        data = self.pipeline(dict(img_path=str(file), img_id=0))
        shown = data['inputs'].permute(1, 2, 0).numpy()[..., ::-1]
        scale = data['data_samples'].metainfo.get('scale_factor', (1., 1.))
        with torch.no_grad():
            tensor = self.model.data_preprocessor(
                dict(inputs=[data['inputs']], data_samples=[data['data_samples']]), False)['inputs']
        return np.ascontiguousarray(shown), tensor, tuple(map(float, scale[:2]))

    @torch.no_grad()
    def best_class(self, tensor: Tensor) -> int:
        """Index of the class that a classifier predicts."""
        feats = self.model.backbone(tensor)
        feats = self.model.neck(feats) if getattr(self.model, 'neck', None) is not None else feats
        return int(self.model.head(feats)[0].argmax())

    def explain(self, file: Path, category: int, box: Sequence[float] | None, layer: str | None) -> dict:
        """A panel: the image and the map over it."""
        image, tensor, scale = self.inputs(file)
        if self.task == 'detector':
            box = [value * scale[i % 2] for i, value in enumerate(box)]
            if box[0] >= image.shape[1] or box[1] >= image.shape[0]:
                raise ConfigError(f'the box is outside {file}')
        score = (class_score(category) if self.task == 'classifier' else
                 region_score(category) if self.task == 'segmentor' else box_score(category, box))
        found, value = grad_cam(self.model, tensor, score, layer)
        height, width = image.shape[:2]  # without what the model pads
        return dict(image=image, map=found[:height, :width], box=box if self.task == 'detector' else None,
                    value=value)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with plain_errors('vis_cam.py'):
        check_device(args.device)
        files = find_images(args.images)[:args.num]
        for file in files:
            read_image(file)  # before anything is computed
        names = args.names or [Path(config.rpartition('::')[2]).stem for config in args.config]
        checkpoints = args.checkpoint or ['none'] * len(names)
        models = [Model(config, checkpoint, args) for config, checkpoint in zip(args.config, checkpoints, strict=True)]
        layers = args.layer or [None]
        layers = layers * len(models) if len(layers) == 1 else layers
        task = models[0].task
        if any(model.task != task for model in models):
            raise ConfigError('the configs are of several tasks: ' + ', '.join(model.task for model in models))
        if task == 'detector' and (args.box is None or args.category is None):
            raise ConfigError('for a detector, --box X1 Y1 X2 Y2 and --class say what to explain')
        if task == 'segmentor' and args.category is None:
            raise ConfigError('for a segmentor, --class says what to explain')
        rows, lines = [], []
        bar = ProgressBar(len(files) * len(models), bar_width=30, file=sys.stderr)
        for file in files:
            row = []
            if args.category is None:
                best = models[0].best_class(models[0].inputs(file)[1])
            for name, model, layer in zip(names, models, layers, strict=True):
                index = best if args.category is None else model.category(args.category)
                panel = model.explain(file, index, args.box, layer)
                label = model.classes[index] if index < len(model.classes) else f'class {index}'
                if not row:
                    row.append(dict(panel, map=None, title=f'{file.name}: {label}'))
                row.append(dict(panel, title=name))
                lines.append(f'{file.name}  {name}  {label}  score {panel["value"]:.3f}')
                bar.update()
            rows.append(row)
        print(file=sys.stderr)
        from plugconv_mm.visualization import save_overlays
        save_overlays(args.out, rows)
        print('\n'.join(lines) + f'\nwritten: {args.out}')


if __name__ == '__main__':
    main()
