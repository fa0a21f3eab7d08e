"""Settings that the tools add to every config."""
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.hooks import CheckpointHook

from plugconv_mm.runtime.config_tree import type_name


def set_pretrain_dataloaders(cfg: Config, **extra: Any) -> None:
    """Give mmpretrain's dataloaders the defaults that its own tools give them; its configs rely on them.

    Args:
        cfg: The whole config, changed in place; those of other packages stay.
        **extra: More defaults.
    """
    if cfg.get('default_scope') != 'mmpretrain':
        return
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if cfg.get(name) is not None:
            cfg[name] = ConfigDict(pin_memory=True, collate_fn=dict(type='default_collate'), **extra) | cfg[name]
            if not cfg[name].get('num_workers'):
                cfg[name].pop('persistent_workers', None)


def make_resumable(cfg: Config) -> None:
    """Add the hooks with which an interrupted training loses nothing, whatever the config has of its own.

    Its ``CheckpointHook`` becomes an :class:`~plugconv_mm.engine.hooks.AtomicCheckpointHook` with the same arguments,
    and a :class:`~plugconv_mm.engine.hooks.ResumableRandomnessHook` is added.
    """
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    checkpoint = hooks.setdefault('checkpoint', ConfigDict(type='CheckpointHook', interval=1))
    if checkpoint and checkpoint.get('type') in ('CheckpointHook', 'mmengine.CheckpointHook', CheckpointHook):
        checkpoint.type = 'plugconv_mm.AtomicCheckpointHook'
    custom = list(cfg.get('custom_hooks') or [])
    if all(type_name(hook.get('type')) != 'ResumableRandomnessHook' for hook in custom):
        custom.append(ConfigDict(type='plugconv_mm.ResumableRandomnessHook'))
    cfg.custom_hooks = custom
