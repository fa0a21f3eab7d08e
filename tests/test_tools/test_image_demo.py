"""Drawing predictions on images and videos of the user's own."""
import json

import pytest

for name in ('mmdet', 'mmseg', 'mmpretrain'):
    pytest.importorskip(name)

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from repository import ROOT, load_file  # noqa: E402

from plugconv_mm.analysis import build_model  # noqa: E402
from plugconv_mm.runtime.drawing import PredictionDrawer  # noqa: E402
from plugconv_mm.runtime.options import make_parser  # noqa: E402
from plugconv_mm.runtime.read_config import load_config  # noqa: E402
from plugconv_mm.runtime.videos import open_video, video_writer  # noqa: E402
from plugconv_mm.runtime.weights import build_with_weights  # noqa: E402

DETECTOR = 'configs/digits/mask-rcnn_parc-resnet50-thin_horfpn_digits.py'
SEGMENTOR = 'configs/digits/upernet_parc-resnet50-thin_digits.py'
FEW = ['--cfg-options', 'model.test_cfg.rcnn.max_per_img=6']
main = load_file('demo/image_demo.py').main


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory):
    """A config and a checkpoint with random weights for each task."""
    folder, found = tmp_path_factory.mktemp('checkpoints'), {}
    classifier = folder / 'classifier.py'
    classifier.write_text(f"""
_base_ = ['{ROOT}/configs/_base_/models/classifier.py']
custom_imports = dict(imports=['plugconv_mm'])
default_scope = 'mmpretrain'
model = dict(
    backbone=dict(type='plugconv_mm.ParCConvNeXt', parc_blocks=(0, 0, 0, 0),
                  arch=dict(channels=[8, 16, 24, 32], depths=[1, 1, 1, 1])),
    head=dict(num_classes=2, in_channels=32))
test_dataloader = dict(dataset=dict(type='CustomDataset', metainfo=dict(classes=['cat', 'dog']), pipeline=[
    dict(type='LoadImageFromFile'), dict(type='ResizeEdge', scale=64), dict(type='PackInputs')]))
""")
    torch.manual_seed(0)
    for task, config in (('detector', DETECTOR), ('segmentor', SEGMENTOR), ('classifier', str(classifier))):
        model = build_model(load_config(make_parser('').parse_args([config])))
        found[task] = config, str(folder / f'{task}.pth')
        torch.save(dict(state_dict=model.state_dict(), meta={}), found[task][1])
    return found


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / 'images'
    (folder / 'more').mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (80, 96, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / 'one.png'), noise)
    cv2.imwrite(str(folder / 'more/two.JPG'), noise[:64])
    (folder / 'notes.txt').write_text('no image')
    return folder


@pytest.mark.parametrize('task', ['detector', 'segmentor', 'classifier'])
def test_folder(task, checkpoints, images, tmp_path, capsys):
    out = tmp_path / 'out'
    main([str(images), *checkpoints[task], '--out-dir', str(out), '--score-thr', '0.01'])
    written = sorted(path.relative_to(out).as_posix() for path in out.rglob('*') if path.is_file())
    assert written == ['more/two.JPG', 'one.png']
    before, after = (cv2.imread(str(folder / 'one.png')) for folder in (images, out))
    if task == 'classifier':  # small images are enlarged, so that the name can be read
        assert min(after.shape[:2]) >= 224
    else:
        assert after.shape == before.shape and (after != before).any()
    text = capsys.readouterr()
    assert f'2 images drawn: {out}' in text.out and '2/2' in text.err


@pytest.fixture
def clip(tmp_path):
    """A video of three frames."""
    path = tmp_path / 'video' / 'clip.mp4'
    path.parent.mkdir()
    with video_writer(path, 12.5) as put:
        for number in range(3):
            put(np.random.default_rng(number).integers(0, 256, (64, 80, 3), dtype=np.uint8))
    return path


@pytest.mark.parametrize('task', ['detector', 'segmentor', 'classifier'])
def test_video(task, checkpoints, clip, tmp_path, capsys):
    """Its drawings have its rate; its predictions are those on its frames as images."""
    out, few = tmp_path / 'out', FEW if task == 'detector' else []
    main([str(clip), *checkpoints[task], '--out-dir', str(out), '--json', str(out / 'clip.json'), '--score-thr', '0',
          *few])
    video = open_video(str(out / 'clip.mp4'))
    assert video.rate == 12.5
    drawn = list(video)
    assert len(drawn) == 3 and drawn[0].shape == ((224, 280, 3) if task == 'classifier' else (64, 80, 3))
    text = capsys.readouterr()
    assert f'3 frames drawn: {out}/clip.mp4' in text.out and '3/3' in text.err and 'broke off' not in text.out
    frames = tmp_path / 'frames'
    frames.mkdir()
    for number, frame in enumerate(open_video(str(clip))):
        cv2.imwrite(str(frames / f'clip-{number:06d}.png'), frame[..., ::-1])
    main([str(frames), *checkpoints[task], '--out-dir', str(out), '--json', str(out / 'images.json'),
          '--score-thr', '0', *few])
    of_video, of_images = (json.loads((out / f'{name}.json').read_text()) for name in ('clip', 'images'))
    assert [entry['file_name'] for entry in of_video['images']] == [f'clip-{number:06d}.jpg' for number in range(3)]
    assert of_video['annotations'] == of_images['annotations'] and len(of_video['annotations']) >= 3
    assert of_video['categories'] == of_images['categories']


def test_json_of_images(checkpoints, images, tmp_path, capsys):
    """Detections of the score alone, and all of them, though the best of a place is drawn alone."""
    arguments = [str(images), *checkpoints['detector'], *FEW, '--out-dir', str(tmp_path / 'out'), '--json',
                 str(tmp_path / 'found.json'), '--score-thr']
    main([*arguments, '0'])
    found = json.loads((tmp_path / 'found.json').read_text())
    assert [(entry['file_name'], entry['height'], entry['width']) for entry in found['images']] == [
        ('more/two.JPG', 64, 96), ('one.png', 80, 96)]
    assert len(found['categories']) == 10 and {entry['image_id'] for entry in found['annotations']} == {1, 2}
    assert f'{len(found["annotations"])} predictions: {tmp_path}/found.json' in capsys.readouterr().out
    scores = sorted((entry['score'] for entry in found['annotations']), reverse=True)
    main([*arguments, str(scores[3])])
    kept = json.loads((tmp_path / 'found.json').read_text())['annotations']
    assert sorted((entry['score'] for entry in kept), reverse=True) == [s for s in scores if s >= scores[3]]


def test_the_best_of_a_place_is_drawn(checkpoints):
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData
    cfg = load_config(make_parser('').parse_args([DETECTOR]))
    drawer = PredictionDrawer(cfg, build_with_weights(cfg, checkpoints['detector'][1]), 0.3)
    boxes = torch.tensor([[10., 10., 50., 50.], [11., 10., 51., 50.], [10., 10., 50., 30.], [60., 60., 70., 70.]])
    sample = DetDataSample(pred_instances=InstanceData(
        bboxes=boxes, labels=torch.arange(4), scores=torch.tensor([0.5, 0.9, 0.4, 0.3])))
    image = np.zeros((80, 96, 3), np.uint8)
    drawing, count = drawer(image, sample)
    assert count == 3 and len(sample.pred_instances) == 4
    del sample.pred_instances
    sample.pred_instances = InstanceData(bboxes=boxes[1:], labels=torch.arange(1, 4),
                                         scores=torch.tensor([0.9, 0.4, 0.3]))
    assert (drawer(image, sample)[0] == drawing).all() and drawing.any()


class Camera:
    """Three frames, and then Ctrl-C."""

    def __init__(self, source):
        assert source == 0
        self.number = 0

    def read(self):
        self.number += 1
        if self.number == 4:
            raise KeyboardInterrupt
        return True, np.full((64, 80, 3), 50 * self.number, np.uint8)

    def get(self, key):
        return 10. if key == cv2.CAP_PROP_FPS else -1.

    def release(self):
        pass


def test_camera(checkpoints, tmp_path, monkeypatch, capsys):
    """It is recorded until Ctrl-C, or shown until q."""
    capture, model = cv2.VideoCapture, checkpoints['segmentor']
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(cv2, 'VideoCapture', Camera)
    main(['0', *model, '--out-dir', str(tmp_path), '--json', str(tmp_path / 'found.json')])
    assert f'3 frames drawn: {tmp_path}/camera-0.mp4' in capsys.readouterr().out
    assert [entry['file_name'] for entry in json.loads((tmp_path / 'found.json').read_text())['images']] == [
        'camera-0-000000.jpg', 'camera-0-000001.jpg', 'camera-0-000002.jpg']

    shown = []
    monkeypatch.setenv('DISPLAY', ':97')
    for name in ('namedWindow', 'destroyWindow', 'destroyAllWindows'):
        monkeypatch.setattr(cv2, name, lambda *_: None)
    monkeypatch.setattr(cv2, 'imshow', lambda title, frame: shown.append(frame.shape))
    monkeypatch.setattr(cv2, 'waitKey', lambda delay: ord('q') if len(shown) == 2 else -1)
    monkeypatch.setattr(cv2, 'getWindowProperty', lambda *_: 1)
    main(['0', *model])
    assert shown == [(64, 80, 3)] * 2 and capsys.readouterr().out.endswith('2 frames drawn\n')
    monkeypatch.setattr(cv2, 'VideoCapture', capture)
    assert len(list(open_video(str(tmp_path / 'camera-0.mp4')))) == 3


def test_a_video_that_breaks_off(checkpoints, tmp_path, capsys):
    path, out = tmp_path / 'clip.avi', tmp_path / 'out'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 10, (80, 64))
    for number in range(6):
        writer.write(np.random.default_rng(number).integers(0, 256, (64, 80, 3), dtype=np.uint8))
    writer.release()
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    main([str(path), *checkpoints['segmentor'], '--out-dir', str(out)])
    assert f'{path} broke off before the 6 frames that it tells of' in capsys.readouterr().out
    assert 0 < len(list(open_video(str(out / 'clip.mp4')))) < 6


def test_pipeline_in_a_wrapper(checkpoints, images, tmp_path):
    config, checkpoint = checkpoints['segmentor']
    wrapped = tmp_path / 'wrapped.py'
    wrapped.write_text(f"""
_base_ = '{ROOT / config}'
test_dataloader = dict(dataset=dict(_delete_=True, type='ConcatDataset', datasets=[
    dict(type='RepeatDataset', times=1, dataset={{{{_base_.test_dataloader.dataset}}}})]))
""")
    for name, given in (('plain', config), ('wrapped', str(wrapped))):
        main([str(images / 'one.png'), given, checkpoint, '--out-dir', str(tmp_path / name)])
    assert (tmp_path / 'plain/one.png').read_bytes() == (tmp_path / 'wrapped/one.png').read_bytes()


def test_one_image_without_boxes(checkpoints, images, tmp_path, capsys):
    main([str(images / 'one.png'), *checkpoints['detector'], '--out-dir', str(tmp_path / 'out'), '--score-thr', '1'])
    text = capsys.readouterr().out
    assert 'no box reached the score 1' in text and f'drawn: {tmp_path}/out/one.png' in text


def mistake(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main(list(map(str, arguments)))
    assert end.value.code not in (None, 0)
    return f'{end.value.code}{capsys.readouterr().err}'


def test_images_that_are_not_there(checkpoints, tmp_path, capsys):
    model = checkpoints['segmentor']
    assert 'there is no image or folder of images' in mistake(capsys, tmp_path / 'none', *model)
    assert f'the folder {tmp_path} holds no image:' in mistake(capsys, tmp_path, *model)


def test_sources_that_are_none(checkpoints, images, clip, tmp_path, capsys):
    """All of this is said before the model is built: the checkpoint is not even there."""
    model = checkpoints['segmentor'][0], 'none.pth'
    broken = tmp_path / 'broken.mp4'
    broken.write_bytes(clip.read_bytes()[:500])
    assert 'cannot be read as an image or a video' in mistake(capsys, broken, *model)
    assert 'cannot be read as an image or a video' in mistake(capsys, images / 'notes.txt', *model)
    assert 'there is no camera 97' in mistake(capsys, 97, *model)
    assert 'name another --out-dir' in mistake(capsys, clip, *model, '--out-dir', clip.parent)
    place = '--out-dir', tmp_path / 'out', '--json'
    assert 'there is no folder' in mistake(capsys, clip, *model, *place, tmp_path / 'none/found.json')
    assert 'is a folder: name a file' in mistake(capsys, clip, *model, *place, tmp_path)
    (tmp_path / 'file').touch()
    assert 'name another folder with --out-dir' in mistake(capsys, clip, *model, '--out-dir', tmp_path / 'file/out')


def test_unreadable_images(checkpoints, images, tmp_path, capsys):
    """Alone they are an error; in a folder the others are drawn first."""
    (images / 'empty.png').touch()
    (images / 'text.jpg').write_text('no image')
    arguments = *checkpoints['segmentor'], '--out-dir', tmp_path / 'out'
    for name in ('empty.png', 'text.jpg'):
        assert f'{images / name} cannot be read as an image' in mistake(capsys, images / name, *arguments)
    text = mistake(capsys, images, *arguments)
    assert 'empty.png' in text and 'text.jpg' in text and 'one.png' not in text
    assert (tmp_path / 'out/one.png').is_file() and not (tmp_path / 'out/text.jpg').exists()


@pytest.mark.parametrize('out', ['.', 'more', 'drawn'])
def test_the_images_themselves_stay(out, checkpoints, images, capsys):
    before = (images / 'more/two.JPG').read_bytes()
    text = mistake(capsys, images, *checkpoints['segmentor'], '--out-dir', images / out)
    assert 'they would be replaced' in text and 'name another --out-dir' in text
    assert (images / 'more/two.JPG').read_bytes() == before and not (images / 'drawn').exists()


def test_a_name_that_no_format_has(checkpoints, images, tmp_path, capsys):
    (images / 'one.png').rename(images / 'one')
    main([str(images / 'one'), *checkpoints['segmentor'], '--out-dir', str(tmp_path / 'out')])
    assert cv2.imread(str(tmp_path / 'out/one.png')) is not None


def test_places_that_cannot_be_used(checkpoints, images, tmp_path, capsys):
    arguments = images, *checkpoints['segmentor']
    assert 'one.png is a file: name a folder' in mistake(capsys, *arguments, '--out-dir', images / 'one.png')
    assert '--device foo cannot be used' in mistake(capsys, *arguments, '--device', 'foo')


def test_checkpoint_of_another_model(checkpoints, images, tmp_path, capsys):
    out = '--out-dir', tmp_path / 'out'
    text = mistake(capsys, images, DETECTOR, checkpoints['segmentor'][1], *out)
    assert 'is a checkpoint of another model than the config' in text and 'weights of the model are not in it' in text
    assert 'there is no checkpoint none.pth' in mistake(capsys, images, DETECTOR, 'none.pth', *out)


def test_unsupported_task(checkpoints, images, tmp_path, capsys):
    config, checkpoint = checkpoints['segmentor']
    text = mistake(capsys, images, config, checkpoint, '--cfg-options', 'default_scope=mmengine')
    assert 'the default_scope of this one is mmengine' in text
