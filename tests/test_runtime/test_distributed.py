"""Several processes: batch norms in them, GPUs for them, and their end."""
import subprocess
import sys

import pytest

for name in ('mmdet', 'mmseg', 'mmpretrain'):
    pytest.importorskip(name)

from mmengine.config import Config  # noqa: E402
from own_configs import ROOT, load  # noqa: E402

from plugconv_mm.errors import ConfigError  # noqa: E402
from plugconv_mm.runtime.config_tree import walk  # noqa: E402
from plugconv_mm.runtime.distributed import revert_sync_bn  # noqa: E402
from plugconv_mm.runtime.options import make_parser  # noqa: E402
from plugconv_mm.runtime.read_config import load_config  # noqa: E402


def norms(cfg):
    return {node['type'] for _, node in walk(cfg.model) if str(node.get('type', '')).endswith('BN')}


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
    revert_sync_bn(cfg)
    assert cfg.model.head[0].norm_cfg.type == expected


def test_more_processes_than_gpus(tmp_path, monkeypatch):
    (tmp_path / 'cfg.py').write_text('')
    monkeypatch.setattr('torch.cuda.device_count', lambda: 2)
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '4')
    with pytest.raises(ConfigError, match='4 processes need a GPU each, .* 2: start at most 2'):
        load_config(make_parser('').parse_args([str(tmp_path / 'cfg.py'), '--launcher', 'pytorch']))


LEAVES = '''
import sys
import torch
from torch import distributed
from plugconv_mm.runtime.distributed import leave_group

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
