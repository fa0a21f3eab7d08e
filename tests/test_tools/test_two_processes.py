"""Every family trained by two processes, and by one on the same batches."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from plugconv_mm.checkpoint import read_checkpoint
from plugconv_mm.datasets import build_far_cue
from plugconv_mm.visualization import read_scalars

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow

CONVNEXT = dict(channels=[8, 16, 24, 32], depths=[1, 1, 2, 1])
FAMILIES = {
    'hornet': (dict(type='HorNet', layer_scale_init=1., arch=dict(
        channels=[8, 16, 32, 64], depths=[1, 1, 2, 1], orders=[2, 3, 4, 5], filters=['7x7', '7x7', 'gf', 'gf'],
        filter_sizes=[(14, 8)] * 3 + [(7, 4)])), (8, 16, 32, 64)),
    'parc-resnet': (dict(type='ParCResNet', base_channels=8), (32, 64, 128, 256)),
    'parc-mobilenetv2': (dict(type='ParCMobileNetV2', widen_factor=0.25), (8, 8, 24, 1280)),
    'parc-convnext': (dict(type='ParCConvNeXt', arch=CONVNEXT, parc_blocks=(0, 0, 1, 0), layer_scale_init=1.),
                      (8, 16, 24, 32)),
    'parcnet': (dict(type='ParCNet', arch=dict(depths=[2, 1, 1], inner_channels=[16, 16, 32],
                                               mixer_channels=[24, 16, 16])), (64, 96, 128, 160)),
    'slak': (dict(type='SLaK', arch=CONVNEXT, kernel_size=(31, 29, 13, 5), width_factor=1., layer_scale_init=1.),
             (8, 16, 24, 32)),
    'kw-resnet': (dict(type='KWResNet', depth=18, cell_num_ratio=0.25, cell_inplane_ratio=0.5,
                       cell_outplane_ratio=0.5), (64, 128, 256, 512)),
    'kw-mobilenetv2': (dict(type='KWMobileNetV2', widen_factor=0.25), (8, 8, 24, 1280)),
    'kw-convnext': (dict(type='KWConvNeXt', layer_scale_init=1., arch=dict(
        channels=[16, 32, 64, 128], depths=[1, 1, 2, 1])), (16, 32, 64, 128)),
    'transcnn': (dict(type='TransCNN', head_width=8, arch=dict(
        depths=[1, 1, 2, 1], channels=[8, 16, 24, 32], expand_ratios=[2, 2, 3, 3])), (8, 16, 24, 32)),
}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('data') / 'far_cue'
    build_far_cue(root, 32, 8)
    return root


def write_config(path, data, backbone, channels, per_process, sharded=False):
    """Batch norms keep their statistics and the head has none: these belong to a process, not to the global batch."""
    cfg = Config.fromfile(ROOT / 'configs/_base_/study.py')
    norm_cfg = dict(type='GN', num_groups=4)
    cfg.merge_from_dict(dict(
        model=dict(
            backbone=dict(_delete_=True, norm_eval=True, **backbone | dict(type=f'plugconv_mm.{backbone["type"]}')),
            neck=dict(type='plugconv_mm.HorFPN', in_channels=list(channels), num_outs=4),
            decode_head=dict(in_channels=[32] * 4, in_index=[0, 1, 2, 3], feature_strides=[4, 8, 16, 32],
                             norm_cfg=norm_cfg)),
        train_dataloader=dict(batch_size=per_process, dataset=dict(data_root=str(data))),
        val_dataloader=dict(dataset=dict(data_root=str(data))),
        train_cfg=dict(max_iters=5, val_interval=5),
        default_hooks=dict(checkpoint=dict(interval=5), logger=dict(interval=1))))
    cfg.optim_wrapper.optimizer = dict(type='SGD', lr=0.02, momentum=0.9)
    cfg.param_scheduler = []
    if sharded:
        cfg.merge_from_dict(Config.fromfile(ROOT / 'configs/_base_/fsdp.py')._cfg_dict)
    cfg.dump(path)


@pytest.mark.parametrize(('family', 'sharded'), [*((family, False) for family in FAMILIES), ('hornet', True)])
def test_two_processes_train_as_one(tmp_path, data, family, sharded):
    """dist_train.sh, without find_unused_parameters; the same weights and evaluation but for rounding."""
    environment = {**os.environ, 'PYTHON': sys.executable, 'PORT': '29513', 'OMP_NUM_THREADS': '1',
                   'PYTHONPATH': str(ROOT)}
    results = []
    for processes in (1, 2):
        config, work_dir = tmp_path / f'{processes}.py', tmp_path / str(processes)
        write_config(config, data, *FAMILIES[family], 8 // processes, sharded and processes == 2)
        command = ['tools/dist_train.sh', str(config), '2'] if processes == 2 else [
            sys.executable, 'tools/train.py', str(config)]
        done = subprocess.run([*command, '--work-dir', str(work_dir)], cwd=ROOT, capture_output=True, text=True,
                              env=environment)
        assert done.returncode == 0, done.stderr[-3000:]
        results.append((read_scalars(work_dir), read_checkpoint(work_dir / 'iter_5.pth')['state_dict']))
    (one, weights), (two, others) = results
    assert len(one['loss']) == len(two['loss']) == 5
    assert two['mIoU'][-1][1] == pytest.approx(one['mIoU'][-1][1], abs=0.2)
    start = torch.cat([value.flatten().float() for value in weights.values()])
    end = torch.cat([others[name].flatten().float() for name in weights])
    assert (start - end).norm() < 1e-3 * start.norm()
