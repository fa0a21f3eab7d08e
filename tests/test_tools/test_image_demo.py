"""Drawing predictions on images of the user's own."""

import pytest

for name in ('mmdet', 'mmseg', 'mmpretrain'):
    pytest.importorskip(name)

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from repository import ROOT, load_file  # noqa: E402

from plugconv_mm.analysis import build_model  # noqa: E402
from plugconv_mm.runtime.options import make_parser  # noqa: E402
from plugconv_mm.runtime.read_config import load_config  # noqa: E402

DETECTOR = 'configs/digits/mask-rcnn_parc-resnet50-thin_horfpn_digits.py'
SEGMENTOR = 'configs/digits/upernet_parc-resnet50-thin_digits.py'
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


def test_checkpoint_of_another_model(checkpoints, images, capsys):
    text = mistake(capsys, images, DETECTOR, checkpoints['segmentor'][1])
    assert 'is a checkpoint of another model than the config' in text and 'weights of the model are not in it' in text
    assert 'there is no checkpoint none.pth' in mistake(capsys, images, DETECTOR, 'none.pth')


def test_unsupported_task(checkpoints, images, tmp_path, capsys):
    config, checkpoint = checkpoints['segmentor']
    text = mistake(capsys, images, config, checkpoint, '--cfg-options', 'default_scope=mmengine')
    assert 'the default_scope of this one is mmengine' in text
