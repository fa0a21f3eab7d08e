"""Train and evaluate a detector and a segmentor on images that need no download, and show what came out.

A part that was finished is kept as long as neither the code, its config nor the data changed; a training that was
interrupted goes on from its last checkpoint. --fresh does everything anew.
"""
import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DETECTOR = 'configs/digits/mask-rcnn_parc-resnet50-thin_horfpn_digits.py'
SEGMENTOR = 'configs/digits/upernet_parc-resnet50-thin_digits.py'
DATA = ROOT / 'data/digits'
IMAGES = 8


class PartError(RuntimeError):
    """A part of the demo that failed; the message says where to look and what to do."""


def show(line: str, passing: bool = False) -> None:
    """Print a line; a passing one is overwritten by the next on a terminal, and is left out elsewhere."""
    if sys.stdout.isatty():
        print(f'\r\033[K{line}', end='' if passing else '\n', flush=True)
    elif not passing:
        print(line, flush=True)


def clock(seconds: float) -> str:
    return f'{int(seconds) // 60}:{int(seconds) % 60:02d}'


def run(command: Sequence[str | Path], log: Path, progress: Callable[[str], str | None] | None = None) -> None:
    """Run one of our tools with its output in ``log``, and report how far it is."""
    environment = dict(os.environ, PYTHONUNBUFFERED='1', PYTHONWARNINGS='ignore',
                       PYTHONPATH=os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')])))
    log.parent.mkdir(parents=True, exist_ok=True)
    last, shown = deque(maxlen=15), time.monotonic()
    with log.open('w') as file:
        process = subprocess.Popen([sys.executable, *map(str, command)], cwd=ROOT, env=environment, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            for line in process.stdout:
                file.write(line)
                file.flush()
                last.append(line.rstrip())
                text = progress(line) if progress else None
                if text:
                    # off a terminal, a line every 20 seconds is enough
                    slow = time.monotonic() - shown > 20
                    show(f'    {text}', passing=sys.stdout.isatty() or not slow)
                    shown = time.monotonic() if slow else shown
            code = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if code:
        raise PartError('\n'.join(f'    | {line}' for line in last) +
                        f'\n    python {" ".join(map(str, command))}\n    ended with exit code {code}. '
                        f'The whole output is in {log}.')


def training_progress(line: str) -> str | None:
    """The interesting part of one of mmengine's log lines."""
    found = re.search(r'\(train\)\s+(.*?)\s+(?:base_)?lr:.*?eta:\s+(?:\d+ days?, )?(\d+):(\d+):(\d+).*?loss: ([\d.]+)',
                      line)
    if found:
        where, hours, minutes, seconds, loss = found.groups()
        left = int(hours) * 3600 + int(minutes) * 60 + int(seconds)
        return f'iteration {re.sub(" +", " ", where)}  loss {float(loss):.2f}  {clock(left)} left'
    found = re.search(r'\(val\).*?((?:coco/bbox_mAP|mIoU): .*)', line)
    return f'evaluation: {evaluation(found.group(1))}' if found else None


def evaluation(text: str) -> str:
    names = {'coco/bbox_mAP': 'box AP', 'coco/segm_mAP': 'mask AP', 'mIoU': 'mIoU'}
    values = re.findall(r'([\w/]+): ([\d.]+)', text)
    return '  '.join(f'{names[name]} {value}' for name, value in values if name in names)


def fingerprint(config: str) -> str:
    """Changes when the code, the config or the data changes."""
    from mmengine.config import Config
    digest = hashlib.sha256(Config.fromfile(ROOT / config).pretty_text.encode())
    digest.update((DATA / 'digits.json').read_bytes())
    for file in sorted((ROOT / 'plugconv_mm').rglob('*.py')):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def checkpoint_of(folder: Path) -> Path | None:
    pointer = folder / 'last_checkpoint'
    if not pointer.is_file():
        return None
    path = Path(pointer.read_text().strip())
    path = path if path.is_absolute() else ROOT / path
    return path if path.is_file() else None


def train(config: str, folder: Path) -> tuple[float, str]:
    """Train, or go on, or keep what is there. Returns the seconds it took and a remark."""
    mark = fingerprint(config)
    state_file = folder / 'demo.json'
    state = json.loads(state_file.read_text()) if state_file.is_file() else {}
    if state.get('mark') != mark:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        state = dict(mark=mark, seconds=0)
    if state.get('finished') and checkpoint_of(folder):
        show('    trained before, and nothing changed since: kept (--fresh trains anew)')
        return state['seconds'], 'trained before'
    command = ['tools/train.py', config, '--work-dir', folder]
    remark = ''
    if checkpoint_of(folder):
        show(f'    goes on from {checkpoint_of(folder).name}, where it was interrupted')
        command.append('--resume')
        remark = 'resumed'
    start = time.monotonic()
    try:
        run([*command, '--cfg-options', 'default_hooks.logger.interval=10'], folder / 'train.log', training_progress)
        state['finished'] = True
    finally:
        state['seconds'] += time.monotonic() - start
        state_file.write_text(json.dumps(state))
    return state['seconds'], remark


def evaluate(config: str, folder: Path, out: Path) -> tuple[dict, float]:
    """Evaluate the last checkpoint with tools/test.py; returns the figures and the seconds."""
    start = time.monotonic()
    run(['tools/test.py', config, checkpoint_of(folder), '--work-dir', folder / 'test', '--out', out],
        folder / 'test.log')
    results = sorted((folder / 'test').glob('*/*.json'), key=lambda path: path.stat().st_mtime)
    return json.loads(results[-1].read_text()), time.monotonic() - start


def spread(items: Sequence[Any], number: int) -> list:
    """``number`` of the items, evenly spread."""
    number = min(number, len(items))
    return [items[i * len(items) // number] for i in range(number)]


def draw_detector(folder: Path, out: Path) -> None:
    import cv2
    import mmengine
    from mmengine.config import Config
    from pycocotools import mask as rle
    from pycocotools.coco import COCO

    from plugconv_mm.visualization import draw_instances, plot_curves, save_grid
    info = Config.fromfile(ROOT / DETECTOR).metainfo
    coco = COCO(str(DATA / 'annotations/instances_val.json'))
    predictions = {Path(item['img_path']).name: item['pred_instances'] for item in mmengine.load(folder / 'val.pkl')}
    rows = []
    for record in spread(coco.loadImgs(sorted(coco.getImgIds())), IMAGES):
        image = cv2.imread(str(DATA / 'val' / record['file_name']))[..., ::-1]
        truth = [dict(box=[a['bbox'][0], a['bbox'][1], a['bbox'][0] + a['bbox'][2], a['bbox'][1] + a['bbox'][3]],
                      label=a['category_id'] - 1, mask=coco.annToMask(a).astype(bool))
                 for a in coco.loadAnns(coco.getAnnIds(record['id']))]
        found = predictions[record['file_name']]
        guesses = [dict(box=box, label=int(label), score=float(score), mask=rle.decode(code).astype(bool))
                   for box, label, score, code in zip(found['bboxes'].tolist(), found['labels'], found['scores'],
                                                      found['masks'], strict=True) if score >= 0.5]
        rows.append((Path(record['file_name']).stem, image, truth, guesses))
    save_grid(out / 'detector.png', 'Mask R-CNN, ParC-ResNet-50 and HorFPN: validation images, scores from 0.5', rows,
              lambda ax, image, item: draw_instances(ax, image, item, info.classes, info.palette))
    plot_curves(out / 'detector_curves.png', folder, 'Mask R-CNN, ParC-ResNet-50 and HorFPN',
                {'coco/bbox_mAP': ('box AP', 1), 'coco/segm_mAP': ('mask AP', 1)})


def draw_segmentor(folder: Path, out: Path) -> None:
    import cv2
    from mmengine.config import Config

    from plugconv_mm.visualization import draw_label_map, plot_curves, save_grid
    info = Config.fromfile(ROOT / SEGMENTOR).metainfo
    rows = []
    for path in spread(sorted((DATA / 'images/validation').iterdir()), IMAGES):
        truth = cv2.imread(str(DATA / 'annotations/validation' / f'{path.stem}.png'), cv2.IMREAD_UNCHANGED)
        guess = cv2.imread(str(folder / 'val' / f'{path.stem}.png'), cv2.IMREAD_UNCHANGED)
        # both as ADE20K has them: 0 is unlabelled, and the classes begin at 1
        rows.append((path.stem, cv2.imread(str(path))[..., ::-1], truth - 1, guess - 1))
    save_grid(out / 'segmentor.png', 'UPerNet, ParC-ResNet-50: validation images', rows,
              lambda ax, image, item: draw_label_map(ax, image, item, info.classes, info.palette))
    plot_curves(out / 'segmentor_curves.png', folder, 'UPerNet, ParC-ResNet-50', {'mIoU': ('mIoU', 0.01)})


def table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ['  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return '\n'.join([lines[0], '  '.join('-' * width for width in widths), *lines[1:]])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=ROOT / 'work_dirs/demo', help='default: work_dirs/demo')
    parser.add_argument('--fresh', action='store_true', help='train anew what was trained before')
    args = parser.parse_args(argv)
    out = args.out.resolve()
    if args.fresh:
        shutil.rmtree(out, ignore_errors=True)
    begin = time.monotonic()
    rows = [('part', 'figures', 'time')]
    part = None
    try:
        part = '1 of 4  the data: handwritten digits on photographs'
        show(f'[{part}]')
        start = time.monotonic()
        run(['tools/dataset_converters/digits.py', '--out', DATA], out / 'data.log')
        manifest = json.loads((DATA / 'digits.json').read_text())['settings']
        rows.append(('data', f'{manifest["num_train"]} + {manifest["num_val"]} images',
                     clock(time.monotonic() - start)))
        models = [('detector', 'Mask R-CNN', DETECTOR, 'val.pkl',
                   (('box AP', 'coco/bbox_mAP', 1), ('mask AP', 'coco/segm_mAP', 1))),
                  ('segmentor', 'UPerNet', SEGMENTOR, 'val', (('mIoU', 'mIoU', 0.01), ))]
        for number, (name, model, config, predictions, wanted) in enumerate(models, start=2):
            part = f'{number} of 4  the {name}: {model} with a thin ParC-ResNet-50'
            show(f'[{part}]')
            seconds, remark = train(config, out / name)
            show('    evaluating the checkpoint with tools/test.py', passing=True)
            figures, testing = evaluate(config, out / name, out / name / predictions)
            text = ', '.join(f'{label} {figures[key] * factor:.3f}' for label, key, factor in wanted)
            show(f'    {text}')
            rows.append((f'train the {name}', f'{model}{", " * bool(remark)}{remark}', clock(seconds)))
            rows.append((f'test the {name}', text, clock(testing)))
        part = '4 of 4  the images'
        show(f'[{part}]')
        start = time.monotonic()
        draw_detector(out / 'detector', out)
        draw_segmentor(out / 'segmentor', out)
        rows.append(('images', f'{IMAGES} of each task, and curves', clock(time.monotonic() - start)))
    except PartError as error:
        show(f'\nPart {part} failed:\n{error}\n    Once that is mended, the same command goes on from here.')
        sys.exit(1)
    except KeyboardInterrupt:
        show(f'\nStopped in part {part}. The same command goes on from the last checkpoint.')
        sys.exit(130)
    rows.append(('all', '', clock(time.monotonic() - begin)))
    shown = out.relative_to(ROOT) if out.is_relative_to(ROOT) else out
    print(f'\n{table(rows)}\n\nPredictions beside ground truth: {shown}/detector.png, {shown}/segmentor.png\n'
          f'Loss and evaluation curves:      {shown}/detector_curves.png, {shown}/segmentor_curves.png\n'
          f'Checkpoints and logs:            {shown}/detector/, {shown}/segmentor/')


if __name__ == '__main__':
    main()
