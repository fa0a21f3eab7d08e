"""Models of configs, with random weights, and the device that they run on."""
import copy
import logging

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from torch import nn

from plugconv_mm.errors import ConfigError
from plugconv_mm.runtime.config_parts import class_of, starting_weights

# The task of a model, by the first of its classes that is here.
_TASKS = {
    'ImageClassifier': 'classifier',
    'CascadeEncoderDecoder': None,
    'EncoderDecoder': 'segmentor',
    'SingleStageDetector': 'detector',
    'SingleStageInstanceSegmentor': 'detector',
    'TwoStageDetector': 'detector',
}


def build_model(cfg: Config) -> nn.Module:
    """The model of a config, with random weights; checkpoints that the config names are not read."""
    if cfg.get('default_scope'):
        init_default_scope(cfg.default_scope)
    return MODELS.build(cfg.model)


def build_part(cfg: Config, settings: dict | list) -> nn.Module:
    """Build a model, or a part of one, and initialise it as the config says, but without reading weights.

    Args:
        cfg: The config, which tells the registry.
        settings: The model or the part, such as ``cfg.model.backbone``.
    """
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)  # else every parameter is listed with how it was initialised
    try:
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
            part = MODELS.build(_from_scratch(settings))
        for module in part if isinstance(part, nn.Sequential) else [part]:
            if hasattr(module, 'init_weights'):
                module.init_weights()
    finally:
        logger.setLevel(level)
    part.eval()  # of mmpretrain's backbones it returns None
    return part


def is_whole_model(cfg: Config, settings: dict) -> bool:
    """Tell whether the type in these settings is a model of a task, with its own preprocessing, and not a backbone."""
    kind = class_of(settings, MODELS, cfg.get('default_scope'))
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _from_scratch(settings: dict | list) -> dict | list:
    """A copy of a config without the weights that it starts from."""
    settings = copy.deepcopy(settings)
    for _, node, key, _ in starting_weights(settings):
        if key == 'init_cfg':
            del node[key]
        else:
            node[key] = None
    return settings


def build_task(cfg: Config, name: str) -> tuple[nn.Module, str]:
    """Build the model of a config.

    Args:
        cfg: The config.
        name: For messages.

    Returns:
        The model, and its task: 'classifier', 'detector', 'segmentor', or 'backbone' for a bare one.

    Raises:
        ConfigError: A model of another task.
    """
    if not isinstance(cfg.get('model'), dict) or 'type' not in cfg.model:
        raise ConfigError(f'{name} has no model')
    model = build_part(cfg, cfg.model)
    kinds = [kind.__name__ for kind in type(model).__mro__]
    task = next((_TASKS[kind] for kind in kinds if kind in _TASKS), None)
    if not isinstance(model, BaseModel):
        task = 'backbone'
    if task is None:
        raise ConfigError(f'{name} is a {kinds[0]}, whose task is not supported here: it should be an image classifier '
                          'of mmpretrain, an encoder-decoder of mmseg, or a detector of mmdet with one or two stages')
    return model, task


def check_device(device: str) -> str:
    """The device, if this machine has it.

    Raises:
        ConfigError: It has not.
    """
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f'--device {device} cannot be used: {str(error).splitlines()[0]}') from error
    return device
