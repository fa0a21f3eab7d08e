"""Check of the weights that a config starts from, before its model is built."""
import os

from mmengine.config import Config

from plugconv_mm.checkpoint.state_dict import split_entry
from plugconv_mm.errors import ConfigError
from plugconv_mm.runtime.check_data import is_there
from plugconv_mm.runtime.config_parts import starting_weights


def check_weights(cfg: Config) -> None:
    """Look for the weights that the parts of the model start from.

    Raises:
        ConfigError: A file is not there; the message says how to go on.
    """
    for path, _, key, file in starting_weights(cfg.get('model')):
        if not is_there(split_entry(file)[0]):
            setting = f'{path}.init_cfg.checkpoint' if key == 'init_cfg' else f'{path}.{key}'
            # a whole model starts from a whole model
            prefix = '' if key != 'init_cfg' or path == 'model' else (
                f' (weights of a classifier trained here also need {path}.init_cfg.prefix=backbone.)')
            raise ConfigError(
                f'the config starts from the weights {file}, which are not there (looked for from {os.getcwd()}). Put '
                f'them there, published ones as they are, or name another file with --cfg-options {setting}=FILE'
                f'{prefix}, or start from random weights with {path}.{key}=None')
