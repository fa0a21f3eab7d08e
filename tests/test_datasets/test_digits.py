import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from plugconv_mm.datasets import CLASSES, build_digits, check_digits
from plugconv_mm.errors import DataError

ROOT = Path(__file__).parents[2]


def quiet(line):
    pass


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
    out = tmp_path_factory.mktemp('data') / 'digits'
    build_digits(out, num_train=12, num_val=8, log=quiet)
    return out


def annotations(root, split):
    return json.loads((root / f'annotations/instances_{split}.json').read_text())


def digest(root):
    files = sorted(path for path in root.rglob('*') if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_seed_same_bytes(digits, tmp_path):
    build_digits(tmp_path / 'again', num_train=12, num_val=8, log=quiet)
    assert digest(tmp_path / 'again') == digest(digits)
    build_digits(tmp_path / 'other', num_train=12, num_val=8, seed=1, log=quiet)
    other = digest(tmp_path / 'other')
    assert not [name for name in other if name.endswith('.jpg') and other[name] == digest(digits)[name]]


def test_more_images_begin_with_the_same(digits, tmp_path):
    build_digits(tmp_path / 'more', num_train=14, num_val=8, log=quiet)
    more, fewer = digest(tmp_path / 'more'), digest(digits)
    assert all(more[name] == fewer[name] for name in fewer if name.endswith(('.jpg', '.png')))


def test_splits_share_no_sample_and_no_pixel(tmp_path):
    build_digits(tmp_path / 'digits', num_train=60, num_val=40, log=quiet)
    train, val = annotations(tmp_path / 'digits', 'train'), annotations(tmp_path / 'digits', 'val')
    samples = {split: {a['sample'] for a in data['annotations']} for split, data in (('train', train), ('val', val))}
    assert samples['train'] and samples['val'] and not samples['train'] & samples['val']

    def columns(data, photo):
        return {c for image in data['images'] if image['photo'] == photo
                for c in range(image['crop'][0], image['crop'][0] + image['crop'][2])}

    for photo in ('china', 'flower'):
        assert columns(train, photo) and columns(val, photo)
        assert not columns(train, photo) & columns(val, photo)
    assert {a['category_id'] for a in train['annotations']} == set(range(1, 11))
    counts = Counter(a['image_id'] for a in train['annotations'])
    assert set(counts.values()) == {2, 3, 4, 5} and len(counts) == 60


@pytest.mark.parametrize('split, ade', [('train', 'training'), ('val', 'validation')])
def test_layouts_agree(digits, split, ade):
    import cv2
    from pycocotools.coco import COCO
    coco = COCO(str(digits / f'annotations/instances_{split}.json'))
    assert [c['name'] for c in coco.loadCats(sorted(coco.getCatIds()))] == list(CLASSES)
    for record in coco.loadImgs(coco.getImgIds()):
        image = digits / split / record['file_name']
        assert image.read_bytes() == (digits / 'images' / ade / record['file_name']).read_bytes()
        pixels = cv2.imread(str(image))
        assert pixels.shape[:2] == (record['height'], record['width'])
        assert 160 <= min(pixels.shape[:2]) and max(pixels.shape[:2]) <= 192
        expected = np.ones(pixels.shape[:2], np.uint8)
        boxes = []
        for annotation in coco.loadAnns(coco.getAnnIds(record['id'])):
            mask = coco.annToMask(annotation).astype(bool)
            assert mask.sum() == annotation['area'] and (expected[mask] == 1).all()  # nothing overlaps
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            assert annotation['bbox'] == [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
            assert max(annotation['bbox'][2:]) <= 64
            expected[mask] = annotation['category_id'] + 1
            boxes.append(annotation['bbox'])
        labels = cv2.imread(str(digits / 'annotations' / ade / record['file_name'].replace('.jpg', '.png')),
                            cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(labels, expected)


def test_masks_show_the_sample(digits):
    """A mask has the shape of the very sample that its annotation names, and another digit's fits worse."""
    import cv2
    from pycocotools.coco import COCO
    from sklearn.datasets import load_digits
    samples = load_digits()
    coco = COCO(str(digits / 'annotations/instances_train.json'))

    def small(image):
        on = image > 0.5 * image.max()
        rows, columns = np.flatnonzero(on.any(1)), np.flatnonzero(on.any(0))
        box = image[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1].astype(np.float32)
        return cv2.resize(box, (8, 8), interpolation=cv2.INTER_AREA).ravel() / box.max()

    references = np.stack([small(s) for s in samples.images])
    means = np.stack([references[samples.target == k].mean(0) for k in range(10)])
    right = 0
    for annotation in coco.loadAnns(coco.getAnnIds()):
        assert samples.target[annotation['sample']] == annotation['category_id'] - 1
        seen = small(coco.annToMask(annotation))
        right += ((means - seen)**2).sum(1).argmin() == annotation['category_id'] - 1
    assert right > 0.6 * len(coco.getAnnIds())


def test_stock_dataset_classes_read_them(digits):
    pytest.importorskip('mmdet')
    pytest.importorskip('mmseg')
    from mmdet.datasets import CocoDataset
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from mmseg.datasets import BaseSegDataset
    init_default_scope('mmdet')
    cfg = Config.fromfile(ROOT / 'configs/_base_/datasets/digits_instance.py')
    dataset = cfg.train_dataloader.dataset
    assert dataset.pop('type') == 'CocoDataset' and dataset.metainfo.classes == CLASSES
    dataset.update(data_root=str(digits))
    sample = CocoDataset(**dataset)[0]
    first = [a for a in annotations(digits, 'train')['annotations'] if a['image_id'] == 1]
    instances = sample['data_samples'].gt_instances
    assert instances.labels.tolist() == [a['category_id'] - 1 for a in first]
    assert [m.sum() > 0 for m in instances.masks.masks] == [True] * len(first)

    init_default_scope('mmseg')
    cfg = Config.fromfile(ROOT / 'configs/_base_/datasets/digits_semantic.py')
    dataset = cfg.val_dataloader.dataset
    assert dataset.pop('type') == 'BaseSegDataset' and dataset.metainfo.classes == ('background', *CLASSES)
    dataset.update(data_root=str(digits))
    labels = BaseSegDataset(**dataset)[0]['data_samples'].gt_sem_seg.data
    first = {a['category_id'] for a in annotations(digits, 'val')['annotations'] if a['image_id'] == 1}
    assert set(labels.unique().tolist()) == {0} | first


def test_complete_set_is_left_alone(digits):
    lines = []
    before = (digits / 'digits.json').stat().st_mtime_ns
    build_digits(digits, num_train=12, num_val=8, log=lines.append)
    assert (digits / 'digits.json').stat().st_mtime_ns == before
    assert lines == [f'{digits} is there and complete']
    with pytest.raises(DataError, match='other settings.*--force'):
        build_digits(digits, num_train=13, num_val=8, log=quiet)


def damage_image(root):
    next((root / 'val').iterdir()).unlink()


def damage_manifest(root):
    (root / 'digits.json').unlink()


def damage_annotations(root):
    path = root / 'annotations/instances_train.json'
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize('damage', [damage_image, damage_manifest, damage_annotations])
def test_half_built_is_found_and_mended(tmp_path, damage):
    root = tmp_path / 'digits'
    build_digits(root, num_train=2, num_val=2, log=quiet)
    whole = digest(root)
    check_digits(root)
    damage(root)
    with pytest.raises(DataError, match='half-built|damaged') as error:
        check_digits(root)
    assert f'digits.py --out {root}' in str(error.value)
    lines = []
    build_digits(root, num_train=2, num_val=2, log=lines.append)
    assert lines[0] == f'{root} is half-built: building it anew'
    assert digest(root) == whole
    assert [p.name for p in tmp_path.iterdir()] == ['digits']


def test_missing_folder_names_the_command(tmp_path):
    with pytest.raises(DataError, match=r'not there.*(\n.*)*digits.py --out .*nowhere'):
        check_digits(tmp_path / 'nowhere')


def test_interruption_leaves_nothing(tmp_path):
    def stop(line):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        build_digits(tmp_path / 'digits', num_train=2, num_val=2, log=stop)
    assert not list(tmp_path.iterdir())


def test_leftovers_of_a_killed_build_go(tmp_path):
    killed = subprocess.Popen([sys.executable, '-c', ''])
    killed.wait()
    (tmp_path / f'.digits.building-{killed.pid}').mkdir()
    (tmp_path / f'.digits.building-{os.getppid()}').mkdir()  # another build that runs
    build_digits(tmp_path / 'digits', num_train=1, num_val=1, log=quiet)
    assert {p.name for p in tmp_path.iterdir()} == {'digits', f'.digits.building-{os.getppid()}'}


def test_a_folder_of_the_users_is_not_touched(tmp_path):
    (tmp_path / 'thesis.tex').write_text('mine')
    with pytest.raises(DataError, match='holds something else'):
        build_digits(tmp_path, num_train=1, num_val=1, force=True, log=quiet)
    assert (tmp_path / 'thesis.tex').read_text() == 'mine'


@pytest.mark.parametrize('settings', [dict(num_val=0), dict(sizes=(100, 200)), dict(sizes=(192, 160)),
                                      dict(digit_sizes=(4, 64))])
def test_senseless_settings(tmp_path, settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        build_digits(tmp_path / 'digits', log=quiet, **settings)


@pytest.mark.slow
def test_other_sizes(tmp_path):
    command = [sys.executable, 'tools/dataset_converters/digits.py', '--out', str(tmp_path / 'big'), '--num-train', '1',
               '--num-val', '1', '--sizes', '320', '320', '--digit-sizes', '100', '120', '--seed', '5']
    settings = dict(cwd=ROOT, capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    done = subprocess.run(command, **settings)
    assert done.returncode == 0, done.stderr
    assert '1 training and 1 validation images, seed 5' in done.stdout
    for split in ('train', 'val'):
        data = annotations(tmp_path / 'big', split)
        assert (data['images'][0]['height'], data['images'][0]['width']) == (320, 320)
        assert all(50 <= a['bbox'][3] <= 120 for a in data['annotations'])
    done = subprocess.run([*command, '--sizes', '10', '20'], **settings)
    assert done.returncode == 1 and done.stderr.startswith('digits.py: error: sizes must be')
