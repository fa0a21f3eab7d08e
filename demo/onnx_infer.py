"""Draw what an exported file predicts on images or a video, with numpy, OpenCV and onnxruntime alone.

The file is one of tools/deploy/export_onnx.py, whose metadata tell how images are prepared. Drawings go into a folder,
and with them predictions.json, in COCO's format: images, categories and annotations with scores.
"""
import argparse
import json
import sys
from pathlib import Path

import cv2
import numpy as np

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')


class Model:
    """A file in ONNX Runtime, which maps an image (H, W, 3), BGR, to annotations."""

    def __init__(self, path, score_thr):
        import onnxruntime
        self.session = onnxruntime.InferenceSession(path, providers=onnxruntime.get_available_providers())
        meta = {key: json.loads(value) for key, value in self.session.get_modelmeta().custom_metadata_map.items()}
        if meta.get('task') not in ('classification', 'segmentation', 'detection'):
            sys.exit(f'{path} is no whole classifier, segmentor or detector of tools/deploy/export_onnx.py')
        self.meta, self.classes = meta, meta.get('classes')
        self.score_thr = meta.get('score_thr', 0.3) if score_thr is None else score_thr

    def name(self, label):
        return self.classes[label] if self.classes and label < len(self.classes) else f'class {label}'

    def colour(self, label):  # BGR
        palette = self.meta.get('palette')
        return tuple(palette[label % len(palette)][::-1]) if palette else _HUES[label * 37 % 180]

    def place(self, image):
        """The input, and the affine map (scale x, scale y, left, top) from the image to it."""
        size, meta, sides = np.array(self.meta['size']), self.meta, np.array(image.shape[:2])
        factors = size / sides
        if meta.get('fit') == 'crop':
            factors[:] = factors.max() / meta['edge']
        elif meta.get('fit') != 'stretch':
            factors[:] = factors.min()
        scaled = np.maximum(np.round(sides * factors), 1).astype(int)
        first = np.maximum(np.round((scaled - size) / 2), 0).astype(int)
        canvas = np.full((*size, 3), meta.get('pad', 0), np.uint8)
        part = cv2.resize(image, tuple(map(int, scaled[::-1])))[first[0]:, first[1]:][:size[0], :size[1]]
        canvas[:part.shape[0], :part.shape[1]] = part
        fy, fx = scaled / sides
        top, left = -first
        if meta['layout'] == 'NCHW':
            canvas = canvas[..., ::-1 if meta['order'] == 'RGB' else 1].astype(np.float32)
            if 'mean' in meta:
                canvas = (canvas - np.float32(meta['mean'])) / np.float32(meta['std'])
            canvas = canvas.transpose(2, 0, 1)
        return np.ascontiguousarray(canvas[None]), (fx, fy, left, top)

    def __call__(self, image):
        canvas, place = self.place(image)
        outputs = [output[0] for output in self.session.run(None, {'input': canvas})]
        if self.meta['task'] == 'classification':
            label = int(outputs[0].argmax())
            return [dict(category_id=label + 1, score=float(outputs[0][label]))]
        if self.meta['task'] == 'segmentation':
            return self.regions(outputs[0], place, image.shape)
        return self.boxes(outputs, place, image.shape)

    def regions(self, labels, place, shape):
        if labels.ndim == 3:  # logits
            labels = labels.argmax(0) if len(labels) > 1 else (labels[0] > 0).astype(np.int64)
        labels = cv2.warpAffine(labels.astype(np.int16), _affine(place), shape[1::-1],
                                flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP, borderValue=-1)
        return [dict(category_id=int(label) + 1, mask=labels == label) for label in np.unique(labels) if label >= 0]

    def boxes(self, outputs, place, shape):
        dets, labels = outputs[:2]
        keep = np.flatnonzero(dets[:, 4] >= max(self.score_thr, 1e-6))
        if nms := self.meta.get('suppression'):
            corners = np.hstack((dets[keep, :2], dets[keep, 2:4] - dets[keep, :2]))
            kept = cv2.dnn.NMSBoxesBatched(corners, dets[keep, 4], labels[keep].astype(np.int32), self.score_thr,
                                           nms['iou_threshold'], top_k=nms['limit']) if len(keep) else []
            keep = keep[list(kept)]
        found, (fx, fy, left, top) = [], place
        for number in keep:
            box = (dets[number, :4] - (left, top, left, top)) / (fx, fy, fx, fy)
            x0, y0, x1, y1 = np.clip(box, 0, (*shape[1::-1], *shape[1::-1])).tolist()
            entry = dict(category_id=int(labels[number]) + 1, score=float(dets[number, 4]),
                         bbox=[x0, y0, x1 - x0, y1 - y0])
            if len(outputs) > 2:
                mask, area = outputs[2][number], dets[number, :4]
                if self.meta['masks'] == 'image':
                    area = (0, 0, *(self.meta['mask_stride'] * side for side in mask.shape[::-1]))
                entry['mask'] = _pasted(mask, area, place, shape)
            found.append(entry)
        return found

    def draw(self, image, found):
        drawing = image.copy()
        for entry in found:
            if 'mask' in entry:
                colour = self.colour(entry['category_id'] - 1)
                drawing[entry['mask']] = drawing[entry['mask']] * 0.5 + np.array(colour) * 0.5
        scored = [entry for entry in found if 'score' in entry]
        if scored and 'bbox' in scored[0]:  # the best class of a place
            boxes, scores = [entry['bbox'] for entry in scored], [entry['score'] for entry in scored]
            scored = [scored[i] for i in cv2.dnn.NMSBoxes(boxes, scores, 0, 0.7)]
        for entry in scored:
            label = entry['category_id'] - 1
            x, y, width, height = map(round, entry.get('bbox', (0, 0, 0, 0)))
            cv2.rectangle(drawing, (x, y), (x + width, y + height), self.colour(label), 1)
            text, size = f'{self.name(label)} {entry["score"]:.2f}', max(0.35, min(image.shape[:2]) / 1200)
            (wide, high), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
            corner = max(min(x + 1, image.shape[1] - wide - 1), 0), max(y - 2, high + 1)
            for ink, thick in ((0, 0, 0), 2), ((255, 255, 255), 1):
                cv2.putText(drawing, text, corner, cv2.FONT_HERSHEY_SIMPLEX, size, ink, thick, cv2.LINE_AA)
        return drawing


_HUES = [tuple(map(int, pixel)) for pixel in
         cv2.cvtColor(np.uint8([[(hue, 200, 230) for hue in range(180)]]), cv2.COLOR_HSV2BGR)[0]]


def _affine(place):
    """From pixels of the image to those of the input; centres of pixels are at halves."""
    fx, fy, left, top = place
    return np.float64([[fx, 0, left + fx / 2 - 0.5], [0, fy, top + fy / 2 - 0.5]])


def _pasted(mask, area, place, shape):
    """A mask of an area of the input, in the image."""
    (x0, y0, x1, y1), (height, width) = map(float, area), mask.shape
    to_cells = np.float64([[width / max(x1 - x0, 1e-6), 0, 0], [0, height / max(y1 - y0, 1e-6), 0], [0, 0, 1]])
    shift = np.float64([[1, 0, 0.5 - x0], [0, 1, 0.5 - y0], [0, 0, 1]])
    matrix = (to_cells @ shift @ np.vstack((_affine(place), (0, 0, 1))))[:2] - [[0, 0, 0.5], [0, 0, 0.5]]
    return cv2.warpAffine(mask.astype(np.float32), matrix, shape[1::-1],
                          flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP) >= 0.5


def _run_lengths(mask):
    """A mask as COCO has them: lengths of runs by columns, that of zeros first."""
    flat = mask.T.ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *ends, flat.size]).tolist()
    return dict(size=list(mask.shape), counts=[0, *counts] if flat[0] else counts)


def frames_of(path):
    """Names and images (H, W, 3), BGR, of an image, a folder of them, or a video."""
    if path.is_dir() or path.suffix.lower() in SUFFIXES:
        paths = sorted(p for p in path.rglob('*') if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        for file in paths:
            image = cv2.imread(str(file))
            if image is None:
                print(f'{file} cannot be read as an image', file=sys.stderr)
            else:
                yield file.relative_to(path) if path.is_dir() else Path(file.name), image
        return
    video = cv2.VideoCapture(str(path))
    number = 0
    while (frame := video.read())[0]:
        yield Path(f'{path.stem}-{number:06d}.jpg'), frame[1]
        number += 1


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('file', help='file of tools/deploy/export_onnx.py')
    parser.add_argument('source', type=Path, help='image, folder of images, or video')
    parser.add_argument('--out-dir', type=Path, default=Path('work_dirs/onnx_infer'), help='default: %(default)s')
    parser.add_argument('--score-thr', type=float, help='lowest score of boxes (default: that of the file, or 0.3)')
    args = parser.parse_args(argv)
    for path in (Path(args.file), args.source):
        if not path.exists():
            sys.exit(f'there is no {path}')
    model, images, annotations, video = Model(args.file, args.score_thr), [], [], None
    is_video = args.source.is_file() and args.source.suffix.lower() not in SUFFIXES
    for number, (name, image) in enumerate(frames_of(args.source), 1):
        found = model(image)
        images.append(dict(id=number, file_name=str(name), height=image.shape[0], width=image.shape[1]))
        drawing = model.draw(image, found)
        for entry in found:
            if (mask := entry.pop('mask', None)) is not None:
                entry.update(segmentation=_run_lengths(mask), area=int(mask.sum()))
            annotations.append(dict(id=len(annotations) + 1, image_id=number, **entry))
        target = args.out_dir / (name.with_suffix('.png') if not is_video else f'{args.source.stem}.mp4')
        target.parent.mkdir(parents=True, exist_ok=True)
        if not is_video:
            cv2.imwrite(str(target), drawing)
            continue
        if video is None:
            rate = cv2.VideoCapture(str(args.source)).get(cv2.CAP_PROP_FPS) or 25
            video = cv2.VideoWriter(str(target), cv2.VideoWriter_fourcc(*'mp4v'), rate, image.shape[1::-1])
        video.write(drawing)
    if video is not None:
        video.release()
    if not images:
        sys.exit(f'{args.source} holds no image or video that OpenCV reads')
    count = max([len(model.classes or ()), *(entry['category_id'] for entry in annotations)])
    categories = [dict(id=label + 1, name=model.name(label)) for label in range(count)]
    (args.out_dir / 'predictions.json').write_text(
        json.dumps(dict(images=images, categories=categories, annotations=annotations)))
    print(f'{len(images)} images, {len(annotations)} annotations: {args.out_dir}')


if __name__ == '__main__':
    main()
