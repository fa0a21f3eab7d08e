"""Settings that the tools add, where a config names classes by themselves."""
import runpy
from argparse import Namespace

import pytest

for name in ('mmdet', 'mmseg', 'mmpretrain'):
    pytest.importorskip(name)

from mmengine.config import Config  # noqa: E402
from mmengine.hooks import CheckpointHook  # noqa: E402
from mmengine.optim import OptimWrapper  # noqa: E402
from own_configs import ROOT  # noqa: E402

from plugconv_mm.engine.hooks import ResumableRandomnessHook  # noqa: E402
from plugconv_mm.runtime.defaults import make_resumable  # noqa: E402


def test_types_that_are_classes():
    """As configs have them that import what they name."""
    cfg = Config(dict(default_hooks=dict(checkpoint=dict(type=CheckpointHook, interval=2)), custom_hooks=[
        dict(type=ResumableRandomnessHook)]))
    make_resumable(cfg)
    assert cfg.default_hooks.checkpoint == dict(type='plugconv_mm.AtomicCheckpointHook', interval=2)
    assert len(cfg.custom_hooks) == 1
    cfg = Config(dict(optim_wrapper=dict(type=OptimWrapper)))
    tool = runpy.run_path(str(ROOT / 'tools/train.py'))
    tool['merge'](cfg, Namespace(amp=True, auto_scale_lr=False, resume=None))
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
