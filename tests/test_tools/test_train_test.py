"""tools/train.py and tools/test.py on a handful of images, and what they say of mistakes."""
import json
import os
import pickle
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

for name in ('mmdet', 'mmseg'):
    pytest.importorskip(name)

from code_in_files import Mkdir  # noqa: E402
from mmengine.model import BaseModel  # noqa: E402
from repository import ROOT, tool  # noqa: E402
from run_logs import figures  # noqa: E402

from plugconv_mm.datasets import build_digits  # noqa: E402
from plugconv_mm.runtime.options import make_parser  # noqa: E402
from plugconv_mm.runtime.read_config import load_config  # noqa: E402

DETECTOR = 'configs/digits/mask-rcnn_parc-resnet50-thin_horfpn_digits.py'
SEGMENTOR = 'configs/digits/upernet_parc-resnet50-thin_digits.py'


train, evaluate = tool('train').main, tool('test').main


@pytest.fixture(scope='session')
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp('data') / 'digits'
    build_digits(out, num_train=4, num_val=2, log=lambda line: None)
    return out


def options(data, *more, name=DETECTOR):
    loaders = [f'{loader}_dataloader.dataset.data_root={data}/' for loader in ('train', 'val', 'test')]
    if name == DETECTOR:
        loaders += [f'{e}_evaluator.ann_file={data}/annotations/instances_val.json' for e in ('val', 'test')]
        # of the two iterations of an epoch
        more = ['train_cfg.max_epochs=1', 'train_dataloader.batch_size=2', 'model.backbone.base_channels=4',
                'model.neck.in_channels=[16,32,64,128]', *more]
    elif name == SEGMENTOR:
        more = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'train_dataloader.batch_size=2',
                'default_hooks.checkpoint.interval=2', 'model.backbone.base_channels=4',
                'model.decode_head.in_channels=[16,32,64,128]', *more]
    return ['--cfg-options', *loaders, 'log_level=ERROR', *more]


@pytest.fixture(scope='session')
def trained(data, tmp_path_factory):
    """Work dirs of a detector and a segmentor of two iterations."""
    out, before = tmp_path_factory.mktemp('work'), os.getcwd()
    os.chdir(ROOT)
    try:
        for config, name in ((DETECTOR, 'detector'), (SEGMENTOR, 'segmentor')):
            train([config, '--work-dir', str(out / name), *options(data, name=config)])
    finally:
        os.chdir(before)
    return dict(detector=out / 'detector/epoch_1.pth', segmentor=out / 'segmentor/iter_2.pth')


def message(capsys, call, *arguments):
    """What a mistake ends with: one message, exit code 1."""
    with pytest.raises(SystemExit) as end:
        call([str(argument) for argument in arguments])
    text = end.value.code
    assert isinstance(text, str) and re.match(r'(train|test)\.py: error: ', text) and text.count('\n') < 8
    return text


def test_segmentor_same_figures_after_training(trained, data, tmp_path):
    evaluate([SEGMENTOR, str(trained['segmentor']), '--work-dir', str(tmp_path), '--out', str(tmp_path / 'labels'),
              *options(data, name=SEGMENTOR)])
    after = figures(trained['segmentor'].parent)
    assert after and figures(tmp_path) == after
    import cv2
    for path in (data / 'images/validation').iterdir():
        labels = cv2.imread(str(tmp_path / f'labels/{path.stem}.png'), cv2.IMREAD_UNCHANGED)
        assert labels.shape == cv2.imread(str(path)).shape[:2] and 1 <= labels.min() and labels.max() <= 11


def test_detector_predictions_and_images(trained, data, tmp_path):
    evaluate([DETECTOR, str(trained['detector']), '--work-dir', str(tmp_path), '--out', str(tmp_path / 'val.pkl'),
              *options(data)])
    predictions = pickle.loads((tmp_path / 'val.pkl').read_bytes())
    assert sorted(Path(p['img_path']).name for p in predictions) == ['val_00000.jpg', 'val_00001.jpg']
    assert set(predictions[0]['pred_instances']) >= {'bboxes', 'labels', 'scores', 'masks'}


@pytest.mark.slow
def test_show_dir(trained, data, tmp_path):
    evaluate([DETECTOR, str(trained['detector']), '--work-dir', str(tmp_path), '--show-dir', 'shown', *options(data)])
    assert len(list(tmp_path.glob('*/shown/*.jpg'))) == 2


@pytest.mark.slow
def test_segmentor_show_dir(trained, data, tmp_path):
    evaluate([SEGMENTOR, str(trained['segmentor']), '--work-dir', str(tmp_path), '--show-dir', str(tmp_path / 'shown'),
              *options(data, name=SEGMENTOR)])
    assert len(list((tmp_path / 'shown').rglob('*.png'))) == 2


@pytest.mark.parametrize('config, kind', [
    pytest.param(DETECTOR, 'detector', marks=pytest.mark.slow), (SEGMENTOR, 'segmentor')])
def test_half_precision(config, kind, trained, data, tmp_path, monkeypatch):
    seen, run_forward = set(), BaseModel._run_forward

    def spy(self, *args, **kwargs):
        seen.add(torch.is_autocast_enabled('cpu') and torch.get_autocast_dtype('cpu'))
        return run_forward(self, *args, **kwargs)

    monkeypatch.setattr(BaseModel, '_run_forward', spy)
    evaluate([config, str(trained[kind]), '--work-dir', str(tmp_path), '--amp', *options(data, name=config)])
    assert seen == {torch.bfloat16} and figures(tmp_path)


@pytest.mark.slow
def test_segmentor_tta(trained, data, tmp_path):
    arguments = [SEGMENTOR, str(trained['segmentor']), '--out', str(tmp_path / 'figures.json'), '--out-item', 'metrics',
                 '--work-dir', str(tmp_path), '--tta', *options(data, name=SEGMENTOR)]
    evaluate(arguments)
    assert 0 <= json.loads((tmp_path / 'figures.json').read_text())['mIoU'] <= 100


@pytest.mark.slow
def test_detector_tta_evaluates_boxes(trained, data, tmp_path):
    out = tmp_path / 'figures.json'
    with pytest.warns(UserWarning, match='box AP only'):
        evaluate([DETECTOR, str(trained['detector']), '--work-dir', str(tmp_path), '--tta', '--out', str(out),
                  '--out-item', 'metrics', *options(data)])
    assert not [key for key in json.loads(out.read_text()) if 'segm' in key]


def test_resume_goes_on(trained, data, tmp_path):
    shutil.copy(trained['segmentor'], tmp_path / 'iter_2.pth')
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_2.pth'))
    train([SEGMENTOR, '--work-dir', str(tmp_path), '--resume', *options(data, name=SEGMENTOR), 'train_cfg.max_iters=3',
           'default_hooks.checkpoint.interval=1'])
    assert torch.load(tmp_path / 'iter_3.pth', weights_only=False)['message_hub']['runtime_info']['iter'] == 2


def test_auto_scale_lr(data, tmp_path):
    train([SEGMENTOR, '--work-dir', str(tmp_path), '--auto-scale-lr', *options(data, name=SEGMENTOR),
           'train_cfg.max_iters=1', 'train_cfg.val_interval=5', 'default_hooks.checkpoint.interval=1',
           'optim_wrapper.optimizer.lr=2e-3'])
    optimizer = torch.load(tmp_path / 'iter_1.pth', weights_only=False)['optimizer']
    assert optimizer['param_groups'][0]['initial_lr'] == pytest.approx(2e-3 * 2 / 8)


def test_classification(tmp_path):
    """mmpretrain's configs rely on what its own tools give the dataloaders."""
    pytest.importorskip('mmpretrain')
    import cv2
    rng = np.random.default_rng(0)
    for i in range(8):
        path = tmp_path / f'data/{"ab"[i % 2]}/{i // 2}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 255, (32, 32, 3), np.uint8))
    loader = f"""dict(batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dict(
        type='CustomDataset', data_root='{tmp_path}/data', pipeline=[dict(type='LoadImageFromFile'),
        dict(type='PackInputs')]))"""
    config = tmp_path / 'classify.py'
    config.write_text(f"""
default_scope = 'mmpretrain'
model = dict(type='ImageClassifier', backbone=dict(type='ResNet', depth=18), neck=dict(type='GlobalAveragePooling'),
             head=dict(type='LinearClsHead', num_classes=2, in_channels=512, topk=(1, )))
train_dataloader = {loader}
val_dataloader = test_dataloader = {loader}
val_evaluator = test_evaluator = dict(type='Accuracy', topk=(1, ))
train_cfg, val_cfg, test_cfg = dict(by_epoch=True, max_epochs=1), dict(), dict()
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
default_hooks = dict(visualization=dict(type='VisualizationHook', enable=False))
visualizer = dict(type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
log_level = 'ERROR'
""")
    train([str(config), '--work-dir', str(tmp_path / 'work')])
    evaluate([str(config), str(tmp_path / 'work/epoch_1.pth'), '--work-dir', str(tmp_path / 'test'), '--tta',
              '--out', str(tmp_path / 'pred.pkl')])
    assert len(pickle.loads((tmp_path / 'pred.pkl').read_bytes())) == 8
    # all images are drawn, those of one name in two folders too, and with views as without
    for folder, more in (('shown', []), ('shown-tta', ['--tta'])):
        evaluate([str(config), str(tmp_path / 'work/epoch_1.pth'), '--work-dir', str(tmp_path / 'test'),
                  '--show-dir', str(tmp_path / folder), *more])
        drawn = sorted(path.relative_to(tmp_path / folder).as_posix() for path in (tmp_path / folder).rglob('*.png'))
        assert drawn == [f'{name}/{i}.png' for name in 'ab' for i in range(4)]


# Mistakes


def test_missing_config(capsys):
    text = message(capsys, train, DETECTOR.replace('_digits', '_digit'))
    assert 'there is no config' in text and f'Did you mean {Path(DETECTOR).name}' in text


def test_broken_config(capsys, tmp_path):
    (tmp_path / 'broken.py').write_text('model = dict(')
    assert 'cannot read the config' in message(capsys, train, tmp_path / 'broken.py')


@pytest.mark.parametrize('wrong', ['lr', 'train_cfg'])
def test_option_without_value(capsys, wrong):
    with pytest.raises(SystemExit) as end:
        train([DETECTOR, '--cfg-options', wrong])
    assert end.value.code == 2 and 'takes key=value pairs' in capsys.readouterr().err


def test_option_that_does_not_fit(capsys):
    assert 'does not fit' in message(capsys, train, DETECTOR, '--cfg-options', 'param_scheduler.9.type=X')


@pytest.mark.parametrize('given, expected, custom_imports', [
    ('plugconv_mm.ParkResNet', "Did you mean type='plugconv_mm.ParCResNet'", True),
    ('ParCResNet', "Did you mean type='plugconv_mm.ParCResNet'", True),
    ('ResNett', "type='mmdet.ResNet'", False),
    ('NothingLikeIt', "custom_imports = dict(imports=['its.module'])", False)])
def test_unknown_class(capsys, data, tmp_path, given, expected, custom_imports):
    text = message(capsys, train, DETECTOR, '--work-dir', tmp_path, *options(data, f'model.backbone.type={given}'))
    assert f'the config names {given}' in text and expected in text
    assert ("custom_imports = dict(imports=['plugconv_mm'])" in text) == custom_imports


def test_arguments_that_do_not_fit(capsys, data, tmp_path):
    text = message(capsys, train, DETECTOR, '--work-dir', tmp_path,
                   *options(data, 'model.backbone.parc_blocks=(0,0,9,1)'))
    assert 'cannot build plugconv_mm.ParCResNet' in text and '(0, 0, 9, 1)' in text
    text = message(capsys, train, DETECTOR, '--work-dir', tmp_path, *options(data, 'model.neck.filtre=gf'))
    assert 'cannot build plugconv_mm.HorFPN' in text and 'filtre' in text


def test_a_bug_keeps_its_traceback(data, tmp_path, monkeypatch):
    from mmengine.runner import Runner

    def broken(self):
        raise ValueError('a bug')
    monkeypatch.setattr(Runner, 'train', broken)
    with pytest.raises(ValueError, match='a bug'):
        train([SEGMENTOR, '--work-dir', str(tmp_path), *options(data, name=SEGMENTOR)])


@pytest.fixture
def no_model(monkeypatch):
    """Building a model is a failure of the test."""
    from mmengine.runner import Runner
    monkeypatch.setattr(Runner, 'from_cfg', lambda cfg: pytest.fail('a model was built first'))


def test_missing_data(capsys, tmp_path, no_model):
    for config in (DETECTOR, SEGMENTOR):
        text = message(capsys, train, config, '--work-dir', tmp_path, *options(tmp_path / 'nowhere', name=config))
        assert 'is not there' in text and f'tools/dataset_converters/digits.py --out {tmp_path}/nowhere' in text


def test_half_built_data(capsys, data, tmp_path, no_model):
    shutil.copytree(data, tmp_path / 'digits')
    next((tmp_path / 'digits/images/validation').iterdir()).unlink()
    text = message(capsys, train, SEGMENTOR, '--work-dir', tmp_path, *options(tmp_path / 'digits', name=SEGMENTOR))
    assert 'half-built: images/validation holds 1 of 2 files' in text and 'digits.py --out' in text


def test_missing_data_of_another_config(capsys, tmp_path, no_model):
    config = tmp_path / 'coco.py'
    config.write_text("""
default_scope = 'mmdet'
train_dataloader = dict(dataset=dict(type='RepeatDataset', times=2, dataset=dict(
    type='CocoDataset', data_root='data/coco/', ann_file='annotations/train.json', data_prefix=dict(img='train/'))))
""")
    text = message(capsys, train, config, '--work-dir', tmp_path)
    assert 'data/coco/   (train_dataloader)' in text and 'data/coco/train2017/*.jpg' in text
    assert 'train_dataloader.dataset.dataset.data_root=' in text


def test_categories_of_the_users_own(capsys, data, tmp_path, no_model):
    text = message(capsys, train, DETECTOR, '--work-dir', tmp_path, *options(
        data, 'train_dataloader.dataset.metainfo.classes=[person,bicycle]'))
    assert 'annotated:  zero, one' in text and 'the config: person, bicycle' in text
    assert "metainfo=dict(classes=('zero', 'one', " in text


def test_one_sample_in_one_process(capsys, data, tmp_path):
    text = message(capsys, train, SEGMENTOR, '--work-dir', tmp_path, *options(
        data, 'train_dataloader.batch_size=1', 'model.decode_head.pool_scales=[1,2]', name=SEGMENTOR))
    assert 'at least two samples in each process' in text and 'train_dataloader.batch_size=2' in text


def test_checkpoints_that_cannot_be_used(capsys, trained, data, tmp_path, monkeypatch):
    arguments = ['--work-dir', tmp_path, *options(data, name=SEGMENTOR)]
    assert 'there is no checkpoint nowhere.pth' in message(capsys, evaluate, SEGMENTOR, 'nowhere.pth', *arguments)
    assert 'there is no checkpoint nowhere.pth' in message(
        capsys, train, SEGMENTOR, '--resume', 'nowhere.pth', *arguments)
    truncated = tmp_path / 'truncated.pth'
    truncated.write_bytes(trained['segmentor'].read_bytes()[:10000])
    assert 'truncated.pth' in message(capsys, evaluate, SEGMENTOR, truncated, *arguments)
    malicious = tmp_path / 'malicious.pth'
    torch.save(dict(state_dict={}, meta=Mkdir('ran-code')), malicious)
    assert 'malicious.pth' in message(capsys, evaluate, SEGMENTOR, malicious, *arguments)
    assert not (ROOT / 'ran-code').exists()


def test_checkpoint_of_another_model(capsys, trained, data, tmp_path):
    text = message(capsys, evaluate, SEGMENTOR, trained['detector'], '--work-dir', tmp_path,
                   *options(data, name=SEGMENTOR))
    assert 'is a checkpoint of another model than the config' in text and 'weights of the model are not in it' in text


def test_several_evaluators():
    tool = runpy.run_path(str(ROOT / 'tools/test.py'))
    cfg = load_config(make_parser('').parse_args([str(ROOT / DETECTOR)]))
    cfg.test_evaluator = [cfg.test_evaluator]
    with pytest.warns(UserWarning, match='box AP only'):
        tool['set_tta'](cfg, 'mmdet')
    assert cfg.test_evaluator[0].metric == 'bbox'


def test_out_of_the_wrong_kind(capsys, trained, data, tmp_path):
    text = message(capsys, evaluate, DETECTOR, trained['detector'], '--out', 'val.txt', *options(data))
    assert '--out val.txt should end in .pkl' in text


def test_amp_without_a_gpu(capsys, data, tmp_path):
    if torch.cuda.is_available():
        pytest.skip('there is a GPU')
    text = message(capsys, train, SEGMENTOR, '--amp', '--work-dir', tmp_path, *options(data, name=SEGMENTOR))
    assert 'AmpOptimWrapper' in text and 'gpu' in text


def test_end_of_a_command(tmp_path):
    """The whole of it as a user sees it: one message on stderr, no traceback, exit code 1."""
    done = subprocess.run([sys.executable, 'tools/train.py', DETECTOR, '--cfg-options',
                           f'train_dataloader.dataset.data_root={tmp_path}/none'], cwd=ROOT, capture_output=True,
                          text=True, env={**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHONWARNINGS': 'ignore'})
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert f'train.py: error: the data folder {tmp_path}/none is not there' in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize('config', [DETECTOR, SEGMENTOR])
def test_two_processes(data, tmp_path, config):
    """dist_train.sh and dist_test.sh over gloo, and the same figures from both."""
    environment = {**os.environ, 'PYTHON': sys.executable, 'PORT': '29511', 'OMP_NUM_THREADS': '1'}
    settings = dict(cwd=ROOT, capture_output=True, text=True, env=environment)
    more = ['train_dataloader.batch_size=1']
    done = subprocess.run(['tools/dist_train.sh', config, '2', '--work-dir', str(tmp_path),
                           *options(data, *more, name=config)], **settings)
    assert done.returncode == 0, done.stderr[-3000:]
    checkpoint = (tmp_path / 'last_checkpoint').read_text()
    done = subprocess.run(['tools/dist_test.sh', config, checkpoint, '2', '--work-dir', str(tmp_path / 'test'),
                           *options(data, *more, name=config)], **settings)
    assert done.returncode == 0, done.stderr[-3000:]
    assert figures(tmp_path / 'test') == figures(tmp_path)


@pytest.mark.slow
def test_detector_same_figures_after_training(data, tmp_path):
    """Long enough for an AP above zero, on the images it was trained on."""
    more = [*options(data, 'train_cfg.max_epochs=40', 'train_cfg.val_interval=40', 'param_scheduler.1.end=40',
                     'param_scheduler.1.T_max=40', 'model.backbone.base_channels=8',
                     'model.neck.in_channels=[32,64,128,256]', 'default_hooks.checkpoint.interval=40')]
    same = [f'{loader}_dataloader.dataset.{key}' for loader in ('val', 'test') for key in (
        'ann_file=annotations/instances_train.json', 'data_prefix.img=train/')]
    same += [f'{e}_evaluator.ann_file={data}/annotations/instances_train.json' for e in ('val', 'test')]
    train([DETECTOR, '--work-dir', str(tmp_path), *more, *same])
    evaluate([DETECTOR, str(tmp_path / 'epoch_40.pth'), '--work-dir', str(tmp_path / 'test'), *more, *same])
    after = figures(tmp_path)
    assert after['coco/bbox_mAP'] > 0.05 and figures(tmp_path / 'test') == after
