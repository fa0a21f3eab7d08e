"""Predictions of exported files without PyTorch: where boxes, masks and labels come to lie in the image."""
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from repository import ROOT, load_file

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from pycocotools import mask as coco_masks  # noqa: E402

demo = load_file('demo/onnx_infer.py')


def write(path, nodes, outputs, constants=(), layout='NHWC', **meta):
    """An ONNX file of 64x96 pixels with these nodes, and the metadata of an exported one."""
    shape = [1, 64, 96, 3] if layout == 'NHWC' else [1, 3, 64, 96]
    kind = TensorProto.UINT8 if layout == 'NHWC' else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes, 'graph', [helper.make_tensor_value_info('input', kind, shape)],
        [helper.make_tensor_value_info(name, TensorProto.INT64 if name == 'labels' else TensorProto.FLOAT, None)
         for name in outputs], [numpy_helper.from_array(value, name) for name, value in dict(constants).items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 19)], ir_version=9)
    meta = dict(size=[64, 96], layout=layout, order='BGR', classes=['cat', 'dog'], pad=[1, 2, 3], fit='contain') | meta
    helper.set_model_props(model, {key: json.dumps(value) for key, value in meta.items()})
    onnx.save(model, path)
    return str(path)


def detector(path, dets, labels, probabilities=None, **meta):
    """A file that finds the same in every image."""
    constants = dict(_dets=np.float32([dets]), _labels=np.int64([labels]))
    if probabilities is not None:
        constants['_masks'] = np.float32([probabilities])
    names = [name[1:] for name in constants]
    return write(path, [helper.make_node('Identity', [f'_{name}'], [name]) for name in names], names, constants,
                 task='detection', **meta)


def run(path, image, tmp_path, *options):
    """Run the demo on an image; returns what it wrote."""
    cv2.imwrite(str(tmp_path / 'image.png'), image)
    demo.main([path, str(tmp_path / 'image.png'), '--out-dir', str(tmp_path / 'out'), *options])
    found = json.loads((tmp_path / 'out/predictions.json').read_text())
    drawing = cv2.imread(str(tmp_path / 'out/image.png'))
    assert drawing.shape == image.shape
    return found, drawing


def decoded(entry):
    """A mask of COCO's format as an array."""
    runs = entry['segmentation']
    return coco_masks.decode(coco_masks.frPyObjects(runs, *runs['size'])).astype(bool)


@pytest.mark.parametrize('fit, box', [('contain', (20, 40, 60, 88)), ('stretch', (20, 20, 60, 44))])
def test_boxes_in_the_image(fit, box, tmp_path):
    """Twice as large as the input, or twice as wide alone; a box that leaves the image is cut."""
    image = np.full((128 if fit == 'contain' else 64, 192, 3), 90, np.uint8)
    path = detector(tmp_path / 'x.onnx', [(10, 20, 40, 70, 0.9), (0, 0, 5, 5, 0.4), (0, 0, 0, 0, 0)], [1, 0, -1],
                    fit=fit, score_thr=0.5)
    found, drawing = run(path, image, tmp_path)
    assert found['categories'] == [dict(id=1, name='cat'), dict(id=2, name='dog')]
    assert found['images'] == [dict(id=1, file_name='image.png', height=image.shape[0], width=192)]
    entry, = found['annotations']
    assert entry['category_id'] == 2 and entry['score'] == pytest.approx(0.9)
    assert entry['bbox'] == pytest.approx(box)
    assert (drawing != image).any()
    assert len(run(path, image, tmp_path, '--score-thr', '0.3')[0]['annotations']) == 2
    assert not (run(path, image, tmp_path, '--score-thr', '0.95')[1] != image).any()


@pytest.mark.parametrize('kind', ['box', 'image'])
def test_masks_in_the_image(kind, tmp_path):
    """The left half of a box, or of the image, is the object."""
    image = np.full((128, 192, 3), 90, np.uint8)
    masks = np.zeros((1, 32, 48), np.float32)
    masks[:, :, :24] = 1
    path = detector(tmp_path / 'x.onnx', [(10, 20, 40, 60, 0.9)], [0], masks, masks=kind,
                    mask_stride=2)
    entry, = run(path, image, tmp_path)[0]['annotations']
    mask, expected = decoded(entry), np.zeros((128, 192), bool)
    if kind == 'box':
        expected[40:120, 20:50] = True
    else:
        expected[:, :96] = True
    assert (mask != expected).sum() <= mask.shape[0] and entry['area'] == mask.sum()


def test_candidates_are_suppressed(tmp_path):
    dets = [(10, 20, 40, 60, 0.9), (11, 20, 40, 60, 0.8), (11, 20, 40, 60, 0.7), (50, 0, 60, 9, 0.6)]
    path = detector(tmp_path / 'x.onnx', dets, [0, 0, 1, 0], suppression=dict(iou_threshold=0.5, limit=100))
    found = run(path, np.zeros((64, 96, 3), np.uint8), tmp_path)[0]['annotations']
    assert sorted((entry['category_id'], round(entry['score'], 1)) for entry in found) == [(1, .6), (1, .9), (2, .7)]


@pytest.mark.parametrize('fit, logits', [('contain', False), ('stretch', False), ('contain', True)])
def test_regions_in_the_image(fit, logits, tmp_path):
    """The label of a pixel is its brightest channel, in the order RGB: normalisation and order are undone by it."""
    nodes = [helper.make_node('Identity', ['input'], ['logits']) if logits else
             helper.make_node('ArgMax', ['input'], ['labels'], axis=1, keepdims=0)]
    path = write(tmp_path / 'x.onnx', nodes, ['logits' if logits else 'labels'], layout='NCHW', order='RGB',
                 mean=[100, 110, 120], std=[50, 60, 70], fit=fit, task='segmentation', classes=['red', 'green', 'blue'],
                 palette=[[255, 0, 0], [0, 255, 0], [0, 0, 255]])
    image = np.zeros((100, 120, 3), np.uint8)
    image[:, :60, 2], image[:50, 60:, 1], image[50:, 60:, 0] = 255, 255, 255
    found, drawing = run(path, image, tmp_path)
    masks = {entry['category_id']: decoded(entry) for entry in found['annotations']}
    for category, part in ((1, np.s_[:, :60]), (2, np.s_[:50, 60:]), (3, np.s_[50:, 60:])):
        expected = np.zeros((100, 120), bool)
        expected[part] = True
        assert (masks[category] != expected).mean() < 0.02
    assert (drawing == image).mean() > 0.95  # each region in its own colour


def test_class_of_the_centre(tmp_path):
    """The border is cut away, which is all that differs from the one class."""
    nodes = [helper.make_node('GlobalAveragePool', ['input'], ['mean']),
             helper.make_node('Flatten', ['mean'], ['scores'])]
    path = write(tmp_path / 'x.onnx', nodes, ['scores'], layout='NCHW', mean=[0] * 3, std=[255] * 3, fit='crop',
                 edge=0.5, task='classification', classes=['blue', 'green', 'red'])
    image = np.zeros((128, 192, 3), np.uint8)
    image[..., 0], image[40:88, 60:132] = 255, (0, 255, 0)
    entry, = run(path, image, tmp_path)[0]['annotations']
    assert entry['category_id'] == 2 and 0.5 < entry['score'] < 0.7 and 'bbox' not in entry


def test_folder_video_and_what_is_none(tmp_path, capsys):
    path = detector(tmp_path / 'x.onnx', [(10, 20, 40, 60, 0.9)], [1])
    frames = np.random.default_rng(0).integers(0, 256, (4, 64, 96, 3), dtype=np.uint8)
    (tmp_path / 'images/more').mkdir(parents=True)
    cv2.imwrite(str(tmp_path / 'images/a.png'), frames[0])
    cv2.imwrite(str(tmp_path / 'images/more/grey.jpg'), frames[1, ..., 0])
    cv2.imwrite(str(tmp_path / 'images/more/alpha.png'), np.concatenate((frames[1], frames[1, ..., :1]), 2))
    (tmp_path / 'images/broken.jpg').write_text('no image')
    demo.main([path, str(tmp_path / 'images'), '--out-dir', str(tmp_path / 'out')])
    out, err = capsys.readouterr()
    assert 'broken.jpg cannot be read' in err and '3 images, 3 annotations' in out
    assert {p.name for p in (tmp_path / 'out').rglob('*.png')} == {'a.png', 'grey.png', 'alpha.png'}

    video = cv2.VideoWriter(str(tmp_path / 'clip.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 5, (96, 64))
    for frame in frames:
        video.write(frame)
    video.release()
    demo.main([path, str(tmp_path / 'clip.avi'), '--out-dir', str(tmp_path / 'drawn')])
    drawn = cv2.VideoCapture(str(tmp_path / 'drawn/clip.mp4'))
    assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == 4 and drawn.get(cv2.CAP_PROP_FPS) == 5
    assert len(json.loads((tmp_path / 'drawn/predictions.json').read_text())['annotations']) == 4

    (tmp_path / 'notes.txt').write_text('no video')
    for arguments, says in (([path, str(tmp_path / 'none')], 'there is no .*none'),
                            ([path, str(tmp_path / 'notes.txt')], 'holds no image or video'),
                            ([write(tmp_path / 'y.onnx', [helper.make_node('Cast', ['input'], ['x'], to=1)], ['x']),
                              str(tmp_path / 'images')], 'is no whole classifier, segmentor or detector')):
        with pytest.raises(SystemExit, match=says):
            demo.main([*arguments, '--out-dir', str(tmp_path / 'none')])


def test_nothing_else_is_needed(tmp_path):
    """Neither PyTorch nor OpenMMLab nor this package."""
    path = detector(tmp_path / 'x.onnx', [(10, 20, 40, 60, 0.9)], [1])
    cv2.imwrite(str(tmp_path / 'image.png'), np.zeros((64, 96, 3), np.uint8))
    others = ('torch', 'torchvision', 'mmengine', 'mmcv', 'plugconv_mm', 'pycocotools')
    code = (f'import runpy, sys; sys.modules.update(dict.fromkeys({others})); '
            f'runpy.run_path({str(ROOT / "demo/onnx_infer.py")!r}, run_name="__main__")')
    done = subprocess.run([sys.executable, '-c', code, path, str(tmp_path / 'image.png'), '--out-dir',
                           str(tmp_path / 'out')], capture_output=True, text=True)
    assert done.returncode == 0 and '1 images, 1 annotations' in done.stdout, done.stderr
