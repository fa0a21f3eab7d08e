"""Draw what a model predicts on an image, or on all images of a folder.

Detectors draw boxes and masks, segmentors label maps, classifiers the name of the class.
"""
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import torch

from plugconv_mm.runtime.build import check_device
from plugconv_mm.runtime.options import make_parser
from plugconv_mm.runtime.read_config import load_config
from plugconv_mm.runtime.user_errors import plain_errors


def parse_args(argv: Sequence[str] | None = None) -> Namespace:
    parser = make_parser(__doc__, runs=False, first=('images', 'an image, or a folder of images'))
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out-dir', type=Path, help='where to write (default: work_dirs/image_demo/CONFIG)')
    parser.add_argument('--score-thr', type=float, default=0.3, help='lowest score of boxes (default: %(default)s)')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu',
                        help='default: %(default)s')
    args = parser.parse_args(argv)
    if not 0 <= args.score_thr <= 1:
        parser.error(f'--score-thr is between 0 and 1, got {args.score_thr}')
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with plain_errors('image_demo.py'):
        from plugconv_mm.datasets.image_files import find_images
        from plugconv_mm.runtime.drawing import PredictionDrawer, check_task, draw_images
        from plugconv_mm.runtime.prediction import Predictor
        from plugconv_mm.runtime.weights import build_with_weights
        check_device(args.device)
        source = Path(args.images)
        images = find_images(source)
        cfg = load_config(args)
        check_task(cfg)
        model = build_with_weights(cfg, args.checkpoint).to(args.device)
        predictor, drawer = Predictor(cfg, model), PredictionDrawer(cfg, model, args.score_thr)
        out_dir = args.out_dir or Path('work_dirs/image_demo') / Path(args.config).stem
        written, unreadable, drawn = draw_images(predictor, drawer, images, source, out_dir)
    if not drawn:
        print(f'no box reached the score {args.score_thr}: a lower --score-thr draws more')
    print(f'{len(written)} images drawn: {out_dir}' if len(written) > 1 else f'drawn: {written[0]}')
    if unreadable:
        sys.exit('\n'.join(f'image_demo.py: error: {line}' for line in unreadable))


if __name__ == '__main__':
    main()
