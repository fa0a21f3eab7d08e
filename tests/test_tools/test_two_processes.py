"""Every family trained by two processes, and by one on the same batches."""
import os
import socket
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

for name in ('mmengine', 'mmseg'):
    pytest.importorskip(name)

import families  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.model import MMDistributedDataParallel  # noqa: E402
from mmengine.optim import build_optim_wrapper  # noqa: E402
from mmengine.registry import MODELS  # noqa: E402

from plugconv_mm.checkpoint import read_checkpoint  # noqa: E402
from plugconv_mm.datasets import build_distant_cue  # noqa: E402
from plugconv_mm.visualization import read_scalars  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('data') / 'distant_cue'
    build_distant_cue(root, 32, 8)
    return root


def write_config(path, data, family, per_process):
    """The gradient is that of the global batch: batch norms keep their statistics, the head has none, images stay as
    they are, and the loss is an average over pixels (mmseg divides one with weights of classes by the sum of these over
    the pixels of a process). In float64, so that the order of sums does not count.
    """
    backbone, channels = families.FAMILIES[family]
    cfg = Config.fromfile(ROOT / 'configs/_base_/study.py')
    cfg.custom_imports = dict(imports=['plugconv_mm', 'in_float64'])
    cfg.merge_from_dict(dict(
        model=dict(
            data_preprocessor=dict(mean=[70.] * 3, std=[45.] * 3),  # not integers: they make float64 of images
            backbone=dict(_delete_=True, norm_eval=True, **backbone | dict(type=f'plugconv_mm.{backbone["type"]}')),
            neck=dict(type='plugconv_mm.HorFPN', in_channels=list(channels), num_outs=4),
            decode_head=dict(in_channels=[32] * 4, in_index=[0, 1, 2, 3], feature_strides=[4, 8, 16, 32],
                             norm_cfg=dict(type='GN', num_groups=4), loss_decode=dict(class_weight=None))),
        train_dataloader=dict(batch_size=per_process, dataset=dict(data_root=str(data))),
        val_dataloader=dict(dataset=dict(data_root=str(data))),
        train_cfg=dict(max_iters=5, val_interval=5),
        default_hooks=dict(checkpoint=dict(interval=5), logger=dict(interval=1))))
    cfg.optim_wrapper.optimizer = dict(type='SGD', lr=0.02, momentum=0.9)
    cfg.param_scheduler = []
    cfg.custom_hooks = HOOKS.get(family, [])
    cfg.dump(path)


# What these families are trained with; both have to come out the same, too.
HOOKS = {
    'slak': [dict(type='plugconv_mm.DynamicSparsityHook', update_frequency=2)],
    'kw-resnet': [dict(type='plugconv_mm.KernelWarehouseTemperatureHook', iters=4)],
}


@pytest.mark.slow
@pytest.mark.parametrize('family', families.FAMILIES)
def test_two_processes_train_as_one(tmp_path, data, family):
    """dist_train.sh, without find_unused_parameters: the same losses, weights and evaluation."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    environment = {**os.environ, 'PYTHON': sys.executable, 'PORT': str(port), 'OMP_NUM_THREADS': '1',
                   'PYTHONPATH': f'{ROOT}:{ROOT / "tests/helpers"}'}
    results = []
    for processes in (1, 2):
        config, work_dir = tmp_path / f'{processes}.py', tmp_path / str(processes)
        write_config(config, data, family, 8 // processes)
        command = ['tools/dist_train.sh', str(config), '2'] if processes == 2 else [
            sys.executable, 'tools/train.py', str(config)]
        done = subprocess.run([*command, '--work-dir', str(work_dir)], cwd=ROOT, capture_output=True, text=True,
                              env=environment)
        assert done.returncode == 0, done.stderr[-3000:]
        results.append((read_scalars(work_dir), read_checkpoint(work_dir / 'iter_5.pth')))
    (one, alone), (two, shared) = results
    assert len(one['loss']) == len(two['loss']) == 5 and len(two['mIoU']) == 1
    for figure in ('mIoU', 'aAcc', 'grad_norm', *(['temperature'] if family == 'kw-resnet' else [])):
        assert [v for _, v in two[figure]] == pytest.approx([v for _, v in one[figure]], rel=1e-5), figure
    torch.testing.assert_close(shared['state_dict'], alone['state_dict'], rtol=1e-6, atol=1e-8)
    if family == 'slak':
        sparsity = alone['dynamic_sparsity']
        assert sparsity['step'] == 5 and sparsity['masks']
        torch.testing.assert_close(shared['dynamic_sparsity'], sparsity, rtol=0, atol=0)


one_process = pytest.fixture(families.one_process)


@pytest.mark.parametrize('family', [*families.FAMILIES, 'none'])
def test_every_parameter_takes_part(one_process, family):
    """PyTorch refuses the second step of a model some of whose parameters took no part in the first."""
    model = MODELS.build(families.model_of('hornet' if family == 'none' else family, norm_eval=False))
    if family == 'none':
        model.unused = torch.nn.Linear(1, 1)
    wrapper = build_optim_wrapper(model, dict(optimizer=dict(type='SGD', lr=1e-4)))
    model = MMDistributedDataParallel(model.train(), broadcast_buffers=False, find_unused_parameters=False)
    model.train_step(families.images(32), wrapper)
    with pytest.raises(RuntimeError, match='find_unused_parameters') if family == 'none' else nullcontext():
        model.train_step(families.images(32), wrapper)
