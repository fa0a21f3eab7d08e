"""What the command-line tools do to a config, and the checks before a model is built."""
import os
import re
import runpy
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

for name in ('mmdet', 'mmseg', 'mmpretrain'):
    pytest.importorskip(name)

from mmengine.config import Config  # noqa: E402
from mmengine.hooks import CheckpointHook  # noqa: E402
from mmengine.optim import OptimWrapper  # noqa: E402

from plugconv_mm.datasets import build_mini  # noqa: E402
from plugconv_mm.engine.hooks import ResumableRandomnessHook  # noqa: E402
from plugconv_mm.errors import DataError  # noqa: E402
from plugconv_mm.runtime import launch  # noqa: E402

ROOT = Path(__file__).parents[2]
# One config for each layout of data.
CONFIGS = dict(
    coco='configs/hornet/cascade-mask-rcnn_hornet-tiny-7x7_fpn_ms-480-800-3x_coco.py',
    panoptic='configs/horfpn/panoptic-fpn_r50_horfpn_1x_coco.py',
    ade='configs/slak/upernet_slak-tiny_8xb2-160k_ade20k-512x512.py',
    voc='configs/slak/faster-rcnn_slak-tiny_fpn_1x_voc0712.py',
    imagenet='configs/parc/parc-resnet50_8xb128_in1k.py')


@pytest.fixture(scope='module')
def mini(tmp_path_factory):
    out = tmp_path_factory.mktemp('data') / 'mini'
    build_mini(out)
    return out


def load(name, *options):
    return launch.load_config(launch.make_parser('').parse_args(
        [str(ROOT / CONFIGS[name]), *(['--cfg-options', *options] if options else [])]))


def check(name):
    launch.check_data(load(name), 'train_dataloader', 'val_dataloader')


@pytest.mark.parametrize('name', CONFIGS)
def test_whole_data_pass(name, mini, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.symlink(mini, 'data')
    check(name)


@pytest.mark.parametrize('name, gone, seen, tree', [
    ('coco', 'coco/val2017', ['data/coco/val2017/   (val_dataloader)'], 'data/coco/train2017/*.jpg'),
    ('coco', 'coco/annotations/instances_val2017.json',
     ['data/coco/annotations/instances_val2017.json   (val_dataloader, val_evaluator)',
      '--cfg-options val_dataloader.dataset.data_root=FOLDER val_evaluator.ann_file=PATH'],
     'annotations/instances_{train,val}2017.json'),
    ('coco', 'coco', ['data/coco/   (train_dataloader, val_dataloader)',
                      'data/coco/annotations/instances_val2017.json   (val_evaluator)'], 'data/coco/val2017/*.jpg'),
    ('panoptic', 'coco/annotations/panoptic_train2017',
     ['data/coco/annotations/panoptic_train2017/   (train_dataloader)'],
     'data/coco/annotations/panoptic_{train,val}2017/*.png'),
    ('ade', 'ade/ADEChallengeData2016/annotations/validation',
     ['data/ade/ADEChallengeData2016/annotations/validation   (val_dataloader)'],
     'data/ade/ADEChallengeData2016/images/{training,validation}/*.jpg'),
    ('voc', 'VOCdevkit/VOC2012/Annotations', ['data/VOCdevkit/VOC2012/Annotations   (train_dataloader)',
      '--cfg-options train_dataloader.dataset.dataset.datasets.1.data_root=FOLDER'],
     'data/VOCdevkit/VOC2007/ImageSets/Main/{trainval,test}.txt'),
    ('imagenet', 'imagenet/val', ['data/imagenet/val   (val_dataloader)'], 'data/imagenet/train/n01440764/*.JPEG'),
])
def test_missing_data(name, gone, seen, tree, mini, tmp_path, monkeypatch):
    """It says which files, where it looked, how the folder should look, and what to do."""
    monkeypatch.chdir(tmp_path)
    for path in mini.rglob('*'):
        target, path = tmp_path / 'data' / path.relative_to(mini), path.resolve()
        if path.is_file() and not target.is_relative_to(tmp_path / 'data' / gone):
            target.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(path, target)
    with pytest.raises(DataError) as error:
        check(name)
    text = str(error.value)
    assert all(line in text for line in seen) and tree in text
    assert f'looked for from {tmp_path}' in text and re.search(r'_dataloader\.dataset[.\w]*\.data_root=FOLDER', text)


def test_an_empty_folder_is_missing(mini, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'data').mkdir()
    os.symlink(mini / 'ade', 'data/ade')
    check('ade')
    os.unlink('data/ade')
    for part in ('images/training', 'images/validation', 'annotations/training', 'annotations/validation'):
        (tmp_path / 'data/ade/ADEChallengeData2016' / part).mkdir(parents=True)
    with pytest.raises(DataError, match='images/training .*train_dataloader'):
        check('ade')


def test_missing_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = load('ade')
    with pytest.raises(launch.ConfigError) as error:
        launch.check_weights(cfg)
    text = str(error.value)
    assert 'checkpoints/slak_tiny.pth' in text and f'looked for from {tmp_path}' in text
    assert 'model.backbone.init_cfg.checkpoint=FILE' in text and 'model.backbone.init_cfg=None' in text
    launch.check_weights(load('ade', 'model.backbone.init_cfg=None'))
    (tmp_path / 'mine.pth').write_bytes(b'x')
    launch.check_weights(load('ade', 'model.backbone.init_cfg.checkpoint=mine.pth'))
    launch.check_weights(load('panoptic'))  # torchvision:// is fetched


def norms(cfg):
    return {node['type'] for _, node in launch._dicts(cfg.model) if str(node.get('type', '')).endswith('BN')}


def test_sync_bn_becomes_bn_in_one_process(capsys):
    written = Config.fromfile(ROOT / 'configs/_base_/models/upernet.py')
    assert norms(written) == {'SyncBN'}
    cfg = load('ade')
    assert norms(cfg) == {'BN'}
    assert cfg.model.backbone.norm_cfg.type == cfg.model.decode_head.norm_cfg.type == 'BN'
    assert norms(load('coco')) == {'BN'}  # in a list of three heads


@pytest.mark.parametrize('world_size, gpus, expected', [('8', True, 'SyncBN'), ('1', True, 'BN'), ('8', False, 'BN')])
def test_sync_bn_of_several_processes(world_size, gpus, expected, monkeypatch):
    import torch
    monkeypatch.setenv('WORLD_SIZE', world_size)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpus)
    cfg = Config(dict(launcher='pytorch', model=dict(head=[dict(norm_cfg=dict(type='SyncBN'))])))
    launch._revert_sync_bn(cfg)
    assert cfg.model.head[0].norm_cfg.type == expected


def test_more_processes_than_gpus(tmp_path, monkeypatch):
    (tmp_path / 'cfg.py').write_text('')
    monkeypatch.setattr('torch.cuda.device_count', lambda: 2)
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '4')
    with pytest.raises(launch.ConfigError, match='4 processes need a GPU each, .* 2: start at most 2'):
        launch.load_config(launch.make_parser('').parse_args([str(tmp_path / 'cfg.py'), '--launcher', 'pytorch']))


def test_types_that_are_classes():
    """As configs have them that import what they name."""
    cfg = Config(dict(default_hooks=dict(checkpoint=dict(type=CheckpointHook, interval=2)), custom_hooks=[
        dict(type=ResumableRandomnessHook)]))
    launch.make_resumable(cfg)
    assert cfg.default_hooks.checkpoint == dict(type='plugconv_mm.AtomicCheckpointHook', interval=2)
    assert len(cfg.custom_hooks) == 1
    cfg = Config(dict(optim_wrapper=dict(type=OptimWrapper)))
    tool = runpy.run_path(str(ROOT / 'tools/train.py'))
    tool['merge'](cfg, Namespace(amp=True, auto_scale_lr=False, resume=None))
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'


LEAVES = '''
import sys
import torch
from torch import distributed
from plugconv_mm.runtime.launch import leave_group

distributed.init_process_group('gloo', store=distributed.HashStore(), rank=0, world_size=1)
held = [distributed.group.WORLD]
held.append(held)  # as a runner and its hooks hold each other
del held
sys.setswitchinterval(100)  # threads of gloo wait for the interpreter until Python finishes
for _ in range(4):
    distributed.all_reduce(torch.ones(1000000), async_op=True)
leave_group()
'''


def test_threads_of_the_group_end_before_python():
    """One that lets go of a tensor later aborts the process."""
    done = subprocess.run([sys.executable, '-c', LEAVES], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
