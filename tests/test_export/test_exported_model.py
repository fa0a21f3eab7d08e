"""Exported files in the place of the model: its predictions and figures, and files of every runtime."""
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

for name in ('onnx', 'onnxruntime', 'onnxscript', 'mmdet', 'mmseg', 'mmpretrain'):
    pytest.importorskip(name)

from mmdet.structures import DetDataSample  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmpretrain.structures import DataSample  # noqa: E402
from mmseg.structures import SegDataSample  # noqa: E402
from small_models import small_model  # noqa: E402

from plugconv_mm.errors import ExportError  # noqa: E402
from plugconv_mm.export import export_inductor, export_onnx  # noqa: E402
from plugconv_mm.export.exported_model import ExportedModel  # noqa: E402
from plugconv_mm.export.last_layers import last_layers  # noqa: E402
from plugconv_mm.export.placement import placement_of  # noqa: E402
from plugconv_mm.export.prepared import prepare  # noqa: E402
from plugconv_mm.export.runtimes import ExportedFile, open_exported  # noqa: E402
from plugconv_mm.export.side_by_side import compare_figures  # noqa: E402

SIZE = (64, 96)


def as_file(model, **options):
    """What a file of the model does, in PyTorch: the model without an exporter."""
    prepared = prepare(model, SIZE, **options)

    def run(images):
        with torch.no_grad():
            return list(prepared.reference(images))

    return ExportedFile('test', run, {key: json.loads(value) for key, value in prepared.metadata.items()})


def pixels(*sizes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]


def detection_batch(*sizes):
    """Images that were reduced to half their height and a third of their width."""
    return dict(inputs=pixels(*sizes), data_samples=[DetDataSample(metainfo=dict(
        img_shape=(h, w), ori_shape=(2 * h, 3 * w), scale_factor=(1 / 3, 1 / 2))) for h, w in sizes])


def copied(batch):
    return dict(batch, data_samples=[sample.clone() for sample in batch['data_samples']])


@pytest.mark.parametrize('options', [{}, dict(uint8=True), dict(paste_masks=True), dict(uint8=True, any_size=True)],
                         ids=lambda options: '-'.join(options) or 'plain')
def test_detections_are_those_of_the_model(options):
    """Behind their rescaling to the image; a smaller image than the file's is filled up."""
    model = small_model('detector')
    model.roi_head.test_cfg.score_thr = 0.0
    batch = detection_batch(SIZE, SIZE)
    with torch.no_grad():
        expected = model.test_step(copied(batch))
    got = ExportedModel(model, as_file(model, **options)).test_step(copied(batch))
    for a, b in zip(got, expected, strict=True):
        a, b = a.pred_instances, b.pred_instances
        assert len(a) == len(b) > 5 and a.labels.tolist() == b.labels.tolist()
        torch.testing.assert_close(a.scores, b.scores, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(a.bboxes, b.bboxes, atol=1e-3, rtol=1e-4)
        assert a.masks.shape == b.masks.shape == (len(a), 128, 288)
        if 'paste_masks' not in options:  # which come from masks of the input
            assert (a.masks != b.masks).float().mean() < 1e-3


def test_candidates_are_suppressed_and_boxes_stay_in_the_image():
    boxes = torch.tensor([[(10., 20, 40, 60), (11, 20, 40, 60), (11, 20, 40, 60), (50, 30, 90, 64)]])
    scores, labels = torch.tensor([[.9, .8, .7, .6]]), torch.tensor([[0, 0, 1, 1]])
    dets = torch.cat((boxes, scores[..., None]), 2)
    meta = dict(task='detection', layout='NHWC', size=list(SIZE), pad=[0, 0, 0], any_size=False,
                suppression=dict(iou_threshold=0.5, limit=3))
    model = ExportedModel(None, ExportedFile('test', lambda images: [dets, labels], meta))
    found = model.test_step(detection_batch((50, 80)))[0].pred_instances
    assert found.labels.tolist() == [0, 1, 1] and found.scores.tolist() == pytest.approx([.9, .7, .6])
    expected = torch.tensor([(30., 40, 120, 100), (33, 40, 120, 100), (150, 60, 240, 100)])
    torch.testing.assert_close(found.bboxes, expected)


@pytest.mark.parametrize('raw', [False, True])
@pytest.mark.parametrize('classes', [1, 3])
def test_regions_are_those_of_the_model(raw, classes):
    model = small_model('segmentor')
    if classes == 1:
        model.decode_head.out_channels, model.decode_head.threshold = 1, 0.5
        model.decode_head.conv_seg = torch.nn.Conv2d(8, 1, 1)
        model.out_channels = 1
    batch = dict(inputs=pixels(SIZE, SIZE), data_samples=[SegDataSample(metainfo=dict(
        img_shape=SIZE, ori_shape=(96, 144))) for _ in range(2)])
    with torch.no_grad():
        expected = model.test_step(copied(batch))
    exported = ExportedModel(model, as_file(model, raw=raw))
    got = exported.test_step(copied(batch))
    assert ['--raw' in reason for reason in exported.differences] == ([] if raw else [True])
    for a, b in zip(got, expected, strict=True):
        a, b = a.pred_sem_seg.data, b.pred_sem_seg.data
        assert a.shape == b.shape == (1, 96, 144) and len(b.unique()) > 1
        assert (a != b).float().mean() < (1e-4 if raw else 0.2)  # labels in noise, without interpolation


def test_smaller_images_are_told():
    model, size = small_model('segmentor'), (50, 80)
    exported = ExportedModel(model, as_file(model, uint8=True))
    exported.test_step(dict(inputs=pixels(size), data_samples=[
        SegDataSample(metainfo=dict(img_shape=size, ori_shape=size))]))
    assert ['--dynamic batch,size' in reason for reason in exported.differences] == [True]


def test_classes_are_those_of_the_model():
    model = small_model('classifier')
    batch = dict(inputs=torch.stack(pixels(SIZE, SIZE)), data_samples=[DataSample(), DataSample()])
    with torch.no_grad():
        expected = model.test_step(copied(batch))
    got = ExportedModel(model, as_file(model)).test_step(copied(batch))
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a.pred_score, b.pred_score)
        assert a.pred_label == b.pred_label


def test_images_that_do_not_fit():
    model = small_model('detector')
    file = as_file(model, uint8=True)
    images, _ = ExportedModel(model, file).prepare(detection_batch((50, 80), (64, 40)))
    assert images.shape == (2, *SIZE, 3) and images[0, 60, 90].tolist() == file.metadata['pad'] == [104, 116, 124]
    with pytest.raises(ExportError, match='has 70x80 pixels, and the file takes 64x96: .*--dynamic batch,size'):
        ExportedModel(model, file).test_step(detection_batch((70, 80)))
    images, _ = ExportedModel(model, as_file(model, uint8=True, any_size=True)).prepare(
        detection_batch((70, 80), (64, 100)))
    assert images.shape == (2, 70, 100, 3)
    with pytest.raises(ExportError, match='only files of whole'):
        ExportedModel(model, as_file(model, features=True))


def test_figures_that_differ_are_named():
    results = {'PyTorch': {'coco/bbox_mAP': 0.66, 'coco/bbox_mAP_50': 0.9, 'seconds': 0.01},
               'same': {'coco/bbox_mAP': 0.661, 'coco/bbox_mAP_50': 0.5, 'seconds': 0.005},
               'other': {'coco/bbox_mAP': 0.658, 'coco/bbox_mAP_50': 0.9, 'seconds': 0.02}}
    text = compare_figures(Config(dict(default_scope='mmdet')), dict.fromkeys(results), results)
    assert '66.10' in text and '5.0' in text and 'mAP_50' not in text
    assert text.endswith('|\n+---------+---------------+------------+\n'
                         'coco/bbox_mAP of other is 65.80, and 66.00 in PyTorch')
    results = {'PyTorch': {'mIoU': 50., 'seconds': 1.}, 'other': {'mIoU': 49.95, 'seconds': 1.}}
    assert compare_figures(Config(dict(default_scope='mmseg')), dict.fromkeys(results), results).endswith('+')
    results['other']['mIoU'], other = 49.8, SimpleNamespace(differences={'images were filled up'})
    text = compare_figures(Config(dict(default_scope='mmseg')), dict(PyTorch=None, other=other), results)
    assert text.endswith('mIoU of other is 49.80, and 50.00 in PyTorch; images were filled up')


@pytest.mark.parametrize('steps, expected', [
    ([dict(type='Resize', scale=(160, 160), keep_ratio=True)], dict(fit='contain')),
    ([dict(type='mmdet.Resize', scale=(9, 9), keep_ratio=True), dict(type='Pad', pad_val=dict(img=(114, 113, 112)))],
     dict(fit='contain', pad=[114, 113, 112])),
    ([dict(type='Resize', scale=(160, 160)), dict(type='Pad', pad_val=7)], dict(fit='stretch', pad=[7, 7, 7])),
    ([dict(type='ResizeEdge', scale=256), dict(type='CenterCrop', crop_size=224)], dict(fit='crop', edge=0.875)),
    ([dict(type='CenterCrop', crop_size=(224, 224))], dict(fit='crop', edge=1.)), (None, dict(fit='contain'))])
def test_placement(steps, expected):
    dataset = dict(type='CocoDataset', pipeline=steps and [dict(type='LoadImageFromFile'), *steps])
    assert placement_of(Config(dict(test_dataloader=dict(dataset=dataset)))) == expected


def test_what_cannot_be_opened(tmp_path):
    for name, says in (('none.onnx', 'there is no file'), ('x.bin', 'should end in .onnx, .xml, .pt2'),
                       ('x.onnx', 'ONNX Runtime cannot load'), ('x.xml', 'x.xml'), ('x.pt2', 'x.pt2')):
        if name != 'none.onnx':
            (tmp_path / name).write_text('no model')
        if name == 'x.xml':
            pytest.importorskip('openvino')
        with pytest.raises(ExportError, match=says):
            open_exported(tmp_path / name)


def test_failed_compile_leaves_no_file(tmp_path, monkeypatch):
    """A package that the compiler begins and does not end is removed, and the error has its first line."""

    def compile_half(program, package_path, **options):
        Path(package_path).write_bytes(b'half a package')
        raise RuntimeError('no compiler\nand more')

    monkeypatch.setattr(torch._inductor, 'aoti_compile_and_package', compile_half)
    with pytest.raises(ExportError, match='AOTInductor cannot compile this model: RuntimeError: no compiler$'):
        export_inductor(small_model('classifier'), tmp_path / 'x.pt2', SIZE)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_every_runtime(tmp_path):
    """A classifier in all formats: the scores are PyTorch's, and near them in int8 and bfloat16."""
    pytest.importorskip('openvino')
    from plugconv_mm.export.onnx_int8 import quantize_onnx
    from plugconv_mm.export.openvino_file import write_openvino
    model = small_model('classifier')
    images = torch.stack(pixels(SIZE, SIZE, SIZE)).permute(0, 2, 3, 1).contiguous()
    path = tmp_path / 'x.onnx'
    export_onnx(model, path, SIZE, images=images, uint8=True)
    report = export_inductor(model, tmp_path / 'x.pt2', SIZE, images=images, uint8=True)
    assert report.runtime == 'AOTInductor' and report.difference < 1e-4
    quantize_onnx(path, tmp_path / 'x-int8.onnx', [images])
    for precision in ('float32', 'bfloat16', 'int8'):
        write_openvino(path, tmp_path / f'x-{precision}.xml', precision, [images])
    files = {file.name: open_exported(file) for file in tmp_path.iterdir() if file.suffix != '.bin'}
    expected = files['x.onnx'].run(images)[0]
    assert {file.metadata == files['x.onnx'].metadata for file in files.values()} == {True}
    for name, file in files.items():
        got = file.run(images[:2])[0]
        exact = not name.startswith(('x-int8', 'x-bf'))
        np.testing.assert_allclose(got, expected[:2], atol=1e-5 if exact else 0.1)
        assert exact or not np.array_equal(got, expected[:2])
    assert len(files) == 6


def test_last_layers():
    """Those of two heads; what is between layers is none, and what ends in nothing is one."""
    nodes = [('stem', 'Conv', ['x'], ['a']), ('act', 'Relu', ['a'], ['b']), ('box', 'Conv', ['b'], ['c']),
             ('mid', 'MatMul', ['b', 'w'], ['d']), ('add', 'Add', ['d', 'a'], ['e']), ('cls', 'Conv', ['e'], ['f']),
             ('end', 'Sigmoid', ['f'], ['g'])]
    assert sorted(last_layers(nodes, ('Conv', 'MatMul'))) == ['box', 'cls']
    assert last_layers(nodes, ('Conv', )) != last_layers(nodes, ('MatMul', )) == ['mid']
