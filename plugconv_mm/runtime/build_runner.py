"""Runners, built as the tools build them."""
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import FlexibleRunner, Runner

from plugconv_mm.engine.hooks import ParCBackendHook
from plugconv_mm.errors import ConfigError
from plugconv_mm.runtime.config_tree import type_name


def is_sharded(cfg: Config) -> bool:
    """Tell whether a config shards the model over its processes."""
    return type_name((cfg.get('strategy') or {}).get('type')).endswith('FSDPStrategy')


def build_runner(cfg: Config) -> Runner | FlexibleRunner:
    """A runner of the type that the config asks for, which logs the backends that ParC takes.

    Raises:
        ConfigError: A hook needs whole weights, and the config shards them.
    """
    if cfg.get('launcher', 'none') == 'none' and is_sharded(cfg):
        cfg.pop('runner_type')
        cfg.pop('strategy')
        print_log('The model is not sharded: there is one process.', logger='current')
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    if is_sharded(cfg) and any(isinstance(hook, EMAHook) for hook in runner.hooks):
        raise ConfigError('EMAHook averages whole weights, and the config shards them: leave out one of the two, the '
                          'hook or runner_type and strategy')
    runner.register_hook(ParCBackendHook())
    return runner
