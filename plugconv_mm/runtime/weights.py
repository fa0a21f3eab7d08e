"""Weights of a checkpoint in the model that they were made from, and in no other."""
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import CheckpointLoader, Runner, get_state_dict
from torch import Tensor, nn

from plugconv_mm.checkpoint import state_dict_of
from plugconv_mm.checkpoint.fitting import check_plugged, classifier_beside, fit_to_model, plugged_layers
from plugconv_mm.checkpoint.sizes import check_size
from plugconv_mm.errors import CheckpointError, ConfigError
from plugconv_mm.runtime.build import build_model
from plugconv_mm.runtime.config_parts import inner_datasets, metainfo_of

# Checkpoints of a backbone and of dense prediction, or with other outputs, differ in norms of outputs and classifiers.
_BESIDE = re.compile(r'(backbone\.)?(norm\d?|fc|head|classifier)\.')


class CheckFitHook(Hook):
    """Stops a runner whose checkpoint lacks weights of the model; other weights in it do not matter.

    Raises:
        CheckpointError: While the checkpoint is loaded.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        model = model.module if isinstance(model, BaseTTAModel) else model
        own = get_state_dict(model)
        state = fit_to_model(state_dict_of(checkpoint), own, classifier_beside(checkpoint))
        _check_fit(runner._load_from, model, own, state)


def _check_fit(filename: str | Path | None, model: nn.Module, own: Mapping[str, Tensor], state: Mapping[str, Tensor],
               unknown: Sequence[str] = ()) -> None:
    missing = [key for key in own if key not in state and 'num_batches_tracked' not in key]
    other = [key for key in own if key in state and _shape(state[key]) != _shape(own[key])]
    if missing or unknown or other:
        said = [f'{len(keys)} weights {what}, e.g. {keys[0]}' for keys, what in (
            (missing, 'of the model are not in it'), (unknown, 'in it are not of the model'),
            (other, 'have another shape')) if keys]
        message = f'{filename} is a checkpoint of another model than the config: {"; ".join(said)}.'
        check_plugged(state, own, type(model).__name__)
        check_size(state, own, model, message)
        if layers := [layer for layer in plugged_layers(own) if not any(
                name.startswith((f'{layer}.gamma', f'{layer}.new.')) for name in state)]:
            message += f' It has no operator for {len(layers)} of the plugged layers, e.g. {layers[0]}: a training ' \
                       'starts from it with checkpoint=FILE beside the rules of plugconv_mm.plug.'
        raise CheckpointError(f'{message} Give the config that it was trained with')


def _shape(value: object) -> torch.Size | None:
    return getattr(value, 'shape', None)  # the extra state of a module may be no tensor


def load_weights(model: nn.Module, filename: str | Path, parts: tuple[str, ...] = ('', )) -> dict:
    """Load a checkpoint, ours or published, into a model that has to be the one it was made from.

    Args:
        model: The model, or a part of it.
        filename: The file, or an address that mmengine knows; ``#ENTRY`` behind it takes the weights under this entry.
        parts: Prefixes of the weights that have to be there, such as ``('backbone.', 'neck.')``; others are left as
            they are. A checkpoint of a bare backbone serves where only ``'backbone.'`` is asked for.

    Returns:
        The ``meta`` of the checkpoint, which lies beside the weights.

    Raises:
        CheckpointNotFoundError: There is no such file.
        CheckpointError: It cannot be read or fetched, or holds the weights of another model.
    """
    checkpoint = CheckpointLoader.load_checkpoint(str(filename), map_location='cpu', logger='silent')
    state, own = state_dict_of(checkpoint), model.state_dict()
    if parts == ('backbone.', ) and not any(key.startswith(parts) for key in state):
        state = {f'backbone.{key}': value for key, value in state.items()}
    state = fit_to_model(state, own, classifier_beside(checkpoint))
    state = {key: value for key, value in state.items() if key.startswith(parts)}
    whole = parts == ('', )
    _check_fit(filename, model, {key: value for key, value in own.items() if key.startswith(parts) and (
        whole or key in state or not _BESIDE.match(key))}, state, unknown=[
            key for key in state if key not in own and (whole or not _BESIDE.match(key))])
    model.load_state_dict({key: value for key, value in state.items() if key in own}, strict=False)
    meta = checkpoint.get('meta')
    return dict(meta) if isinstance(meta, Mapping) else {}


def build_with_weights(cfg: Config, checkpoint: str) -> nn.Module:
    """Build the model of a config in evaluation mode, with the weights of a checkpoint.

    Its ``dataset_meta`` holds names and colours of the classes, of the checkpoint or else of the config's test data;
    None where neither tells.

    Args:
        cfg: The whole config.
        checkpoint: A file or address, as of :func:`load_weights`; published ones are taken as they are.

    Raises:
        ConfigError: The config has no model.
        CheckpointError: The checkpoint cannot be used, or is of another model.
    """
    if not cfg.get('model'):
        raise ConfigError('the config has no model')
    model = build_model(cfg)
    model.dataset_meta = load_weights(model, checkpoint).get('dataset_meta') or _meta_of_data(cfg)
    return model.eval()


def _meta_of_data(cfg: Config) -> dict | None:
    """Names and colours of the classes of the test data, or None."""
    for _, dataset in inner_datasets((cfg.get('test_dataloader') or {}).get('dataset'), 'test_dataloader.dataset'):
        meta = metainfo_of(dataset, cfg.get('default_scope'))
        if meta:
            return meta
    return None
