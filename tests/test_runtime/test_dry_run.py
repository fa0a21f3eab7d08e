"""Configs run as written, on mini data sets; and the check says where one fails."""
import importlib.util
import json
import os
import re
from pathlib import Path

import dry_run_stand_ins
import pytest
import torch

for name in ('mmdet', 'mmseg', 'mmpretrain'):
    pytest.importorskip(name)

from plugconv_mm.runtime import dry_run, shrink_config  # noqa: E402

ROOT = Path(__file__).parents[2]


def tool(name):
    spec = importlib.util.spec_from_file_location(f'tool_{Path(name).stem}', ROOT / f'tools/{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check_configs = tool('misc/check_configs')

# Each task, with different data sets, evaluators, constructors and schedules.
SOME = [
    'digits/upernet_parc-resnet50-thin_digits',
    'parc/mask-rcnn_parc-mobilenetv2_fpn_ms-480-800-1x_coco',
]
MORE = [
    'parc/parcnet-s_8xb128_in1k-256px',
    'slak/faster-rcnn_slak-tiny_fpn_1x_voc0712',
]
FIGURES = dict(zip(SOME + MORE, ('mIoU', 'coco/segm_mAP', 'accuracy/top5', 'pascal_voc/mAP'), strict=True))


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp('data') / 'mini'
    dry_run.build_data(out)
    return out


def check(names, folder):
    before = os.getcwd()
    try:
        reports = check_configs.check([Path(f'configs/{name}.py') for name in names], folder, log=print)
    finally:
        os.chdir(before)
    return reports


@pytest.mark.parametrize('names', [SOME, pytest.param(MORE, marks=pytest.mark.slow)], ids=['some', 'more'])
def test_some(names, tmp_path):
    reports = check(names, tmp_path)
    assert [(r.config, r.failed, r.error) for r in reports if r.failed] == []
    assert [r.config for r in reports] == [f'configs/{name}.py' for name in names]
    assert all(len(r.losses) == 2 and r.parameters > 1e5 and r.metrics for r in reports)
    assert all(FIGURES[name] in report.metrics for name, report in zip(names, reports, strict=True))
    table = check_configs.table(reports)
    assert len(table.splitlines()) == 2 + len(names)
    if names == SOME:
        assert reports[1].missing_weights == ['checkpoints/parc_mobilenetv2.pth'] and 'parc_mobilenetv2.pth' in table


@pytest.mark.slow
def test_all(tmp_path):
    configs = check_configs.find_configs()
    assert len(configs) > 130
    reports = check([str(path.relative_to('configs').with_suffix('')) for path in configs], tmp_path)
    assert [(r.config, r.failed, r.error) for r in reports if r.failed] == []


@pytest.mark.parametrize('name, figure', [
    ('transcnn/mask-rcnn_transcnn-tiny_fpn_1x_coco', 'coco/bbox_mAP'),
    pytest.param('transcnn/upernet_transcnn-tiny_8xb2-160k_ade20k-512x512', 'mIoU', marks=pytest.mark.slow)])
@pytest.mark.filterwarnings('ignore:mmdet merges')
def test_test_time_augmentation(name, figure, data, tmp_path, monkeypatch):
    """Every scale and its mirror image reach the model, at the resolution of the test times the ratios."""
    from plugconv_mm.runtime.build_runner import build_runner
    from plugconv_mm.runtime.options import make_parser
    from plugconv_mm.runtime.read_config import load_config
    monkeypatch.chdir(ROOT)
    cfg = load_config(make_parser('').parse_args([f'configs/{name}.py', '--work-dir', str(tmp_path)]))
    written = [step.scale for step in cfg.tta_pipeline[1].transforms[0]]
    shrink_config.leave_out_weights(cfg)
    shrink_config.make_small(cfg, data)
    cfg.test_dataloader.dataset.indices = 1
    tool('test').set_tta(cfg, cfg.default_scope)
    runner = build_runner(cfg)
    seen = []
    runner.model.module.backbone.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape[2:])))
    metrics = runner.test()
    assert figure in metrics and not [key for key in metrics if 'segm' in key]
    if 'coco' in name:
        assert written == [(1333, 640), (1333, 800), (1333, 960)] and len(seen) == 2 * 3  # flips, scales
    else:
        assert written == [(1024, 256), (1536, 384), (2048, 512), (2560, 640), (3072, 768), (3584, 896)]
        # windows of 64 x 64, or as high or wide as an image of 32 or 48
        assert {min(size) for size in seen} == {32, 48, 64} and max(map(max, seen)) == 64 and len(seen) > 2 * 6


# What goes wrong is found


def broken(tmp_path, text):
    path = tmp_path / 'broken.py'
    path.write_text(f"_base_ = '{ROOT}/configs/digits/upernet_parc-resnet50-thin_digits.py'\n{text}\n")
    return path


@pytest.mark.parametrize('stage, text, error', [
    ('config', 'x = 1 / 0', 'ZeroDivisionError'),
    ('data', "val_dataloader = dict(dataset=dict(data_root='data/nowhere/'))", 'nowhere'),
    ('build', "model = dict(backbone=dict(depth=51))", 'depth must be one of'),
    ('build', "model = dict(backbone=dict(type='ParCResNets'))",
     "the config names ParCResNets, which is not a model that mmseg knows. Did you mean type='plugconv_mm.ParCResNet'"),
    ('build', "train_dataloader = dict(dataset=dict(pipeline=[dict(type='LoadImageFromFiles')]))",
     'the config names LoadImageFromFiles, which is not a transform'),
    ('train', "train_dataloader = dict(dataset=dict(pipeline=[dict(type='LoadImageFromFile')]))", 'KeyError'),
    ('train', "optim_wrapper = dict(optimizer=dict(lr=1e30), clip_grad=None)", 'the loss is not finite'),
    ('train', "optim_wrapper = dict(optimizer=dict(lr=1e30), clip_grad=None)\ncustom_hooks = []", 'two finite losses'),
    ('evaluate', "val_evaluator = dict(iou_metrics=['mIoU', 'no-such-metric'])", 'KeyError'),
    ('checkpoint', "default_hooks = dict(checkpoint=dict(out_dir='/proc/nowhere'))", ''),
])
def test_the_stage_is_named(stage, text, error, data, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    report = dry_run.dry_run(broken(tmp_path, text), data, tmp_path / 'work')
    assert report.failed == stage and error in report.error, report.error


@pytest.mark.slow
def test_a_lost_state_is_found(data, tmp_path, monkeypatch):
    """A checkpoint without the state of the schedule does not pass for a resumed run."""
    monkeypatch.chdir(ROOT)
    save = torch.save

    def lossy(checkpoint, *args, **kwargs):
        if 'param_schedulers' in checkpoint:
            checkpoint = dict(checkpoint, optimizer=None)
            checkpoint.pop('optimizer')
        return save(checkpoint, *args, **kwargs)

    monkeypatch.setattr(torch, 'save', lossy)
    report = dry_run.dry_run(broken(tmp_path, ''), data, tmp_path / 'work')
    assert report.failed == 'resume', report.error


def test_command_names_config_and_stage(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(check_configs, 'dry_run_apart', dry_run_stand_ins.fails_with_gf)
    check_configs.main(['upernet_parc-resnet50-thin', '--table', str(tmp_path / 'table.md')])
    assert 'upernet_parc-resnet50-thin_digits' in (tmp_path / 'table.md').read_text()
    with pytest.raises(SystemExit) as end:
        check_configs.main(['hornet-tiny', '--jobs', '2'])
    text = str(end.value.code)
    assert re.search(r'hornet-tiny-gf_32xb128_in1k.py failed at evaluate: KeyError: x', text)
    assert '7x7' not in text
    assert '[  1/8]' in capsys.readouterr().out
    with pytest.raises(SystemExit):
        check_configs.main(['no-such-config'])


def test_a_killed_process_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(check_configs, 'dry_run_apart', dry_run_stand_ins.killed)
    report, = check(['digits/upernet_parc-resnet50-thin_digits'], tmp_path)
    assert report.failed == 'process' and '-9' in report.error
    assert json.loads((tmp_path / 'data/mini.json').read_text())['coco'] == 6
