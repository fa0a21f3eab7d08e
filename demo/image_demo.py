"""Draw what a model predicts on an image, on all images of a folder, on a video, or before a camera.

Detectors draw boxes and masks, segmentors label maps, classifiers the name of the class.
"""
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import torch

from plugconv_mm.atomic_write import atomic_write, check_target
from plugconv_mm.runtime.build import check_device
from plugconv_mm.runtime.options import make_parser
from plugconv_mm.runtime.read_config import load_config
from plugconv_mm.runtime.user_errors import plain_errors


def parse_args(argv: Sequence[str] | None = None) -> Namespace:
    parser = make_parser(__doc__, runs=False, first=(
        'source', 'an image, a folder of images, a video, or the number of a camera, such as 0'))
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out-dir', type=Path, help='where to write (default: work_dirs/image_demo/CONFIG; a camera '
                        'is shown in a window until q or Esc is pressed, and with this option recorded until Ctrl-C)')
    parser.add_argument('--json', type=Path, metavar='FILE', help="write the predictions, too, in COCO's format")
    parser.add_argument('--score-thr', type=float, default=0.3,
                        help='lowest score of boxes, drawn or written (default: %(default)s)')
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
        from plugconv_mm.runtime.coco_json import CocoPredictions
        from plugconv_mm.runtime.drawing import PredictionDrawer, check_task, draw_images, draw_video, make_out_dir
        from plugconv_mm.runtime.prediction import Predictor
        from plugconv_mm.runtime.videos import check_window, open_video
        from plugconv_mm.runtime.weights import build_with_weights
        check_device(args.device)
        video, source = open_video(args.source), Path(args.source)
        images = find_images(source) if video is None else []
        cfg = load_config(args)
        check_task(cfg)
        is_camera = video is not None and video.is_camera
        out_dir = args.out_dir or Path('work_dirs/image_demo') / Path(args.config).stem
        if is_camera and not args.out_dir:
            check_window()
            out_dir = None
        else:
            make_out_dir(out_dir, None if is_camera else source)
        if args.json:
            check_target(args.json)
        model = build_with_weights(cfg, args.checkpoint).to(args.device)
        predictor, drawer = Predictor(cfg, model), PredictionDrawer(cfg, model, args.score_thr)
        predictions = CocoPredictions((model.dataset_meta or {}).get('classes'), args.score_thr) if args.json else None
        unreadable = []
        if video is None:
            written, unreadable, drawn = draw_images(predictor, drawer, images, source, out_dir, predictions)
            done = f'{len(written)} images drawn: {out_dir}' if len(written) > 1 else f'drawn: {written[0]}'
        else:
            frames, drawn = draw_video(predictor, drawer, video, out_dir, predictions)
            done = f'{frames} frames drawn' + (f': {out_dir / video.name}.mp4' if out_dir else '')
            if frames < video.count:
                done += f'\n{source} broke off before the {video.count} frames that it tells of'
        if predictions:
            with atomic_write(args.json) as file:
                predictions.write(file)
            done += f'\n{len(predictions.annotations)} predictions: {args.json}'
    if not drawn:
        print(f'no box reached the score {args.score_thr}: a lower --score-thr draws more')
    print(done)
    if unreadable:
        sys.exit('\n'.join(f'image_demo.py: error: {line}' for line in unreadable))


if __name__ == '__main__':
    main()
