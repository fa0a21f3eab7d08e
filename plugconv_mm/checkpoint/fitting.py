"""Names of weights as a model has them."""
import contextlib
from collections import OrderedDict
from collections.abc import Collection, Mapping

from torch import Tensor

from plugconv_mm.checkpoint.conversion import convert_parts, some_of
from plugconv_mm.checkpoint.state_dict import bare_names
from plugconv_mm.errors import CheckpointError

_CLASSIFIER = 'published classifier'  # no name of a module


def attach_classifier(backbone: dict[str, Tensor], classifier: dict[str, Tensor] | None) -> dict[str, Tensor]:
    """Weights of a backbone, with those of the whole classifier that it is of for models that have them.

    They are in the metadata that state dicts of torch have, which mmengine hands on.
    """
    if classifier is None:
        return backbone
    state = OrderedDict(backbone)
    state._metadata = OrderedDict({_CLASSIFIER: classifier})  # type: ignore[attr-defined]
    return state


def classifier_beside(checkpoint: Mapping) -> dict[str, Tensor]:
    """The classifier that :func:`attach_classifier` put beside these weights or a checkpoint's; empty without one."""
    return getattr(checkpoint.get('state_dict', checkpoint), '_metadata', {}).get(_CLASSIFIER, {})


def fit_to_model(state: dict[str, Tensor], own: Mapping[str, object],
                 classifier: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Rename weights as the model calls them, if it calls them otherwise.

    Only the model tells whether ``model.`` in front of all names is a wrapper's prefix, whether names that another
    package has, too, such as mmpretrain's of HorNet, are to become ours, or whether a published classifier is taken
    whole, which a model with a ``head`` does. Of the names as they are, without prefixes or with the model's, and
    converted, those are taken of which most are the model's; as they are, where as many are.

    Args:
        state: The weights; they are not changed.
        own: The model's names, with anything.
        classifier: The published classifier that the weights are of, by default that beside them.

    Returns:
        The weights, shared, under the names that fit best.
    """
    if state.keys() <= own.keys() or own.keys() <= state.keys():
        return state
    classifier = classifier or classifier_beside(state)
    if classifier and any(name.startswith('head.') for name in own):
        return classifier
    bare = bare_names(state)
    candidates = [state, {bare[name]: value for name, value in state.items()}]
    with contextlib.suppress(CheckpointError):  # of no family
        candidates.append(convert_parts(candidates[1])[0])
    of_own = {name: key for key, name in bare_names(own).items()}
    candidates += [{of_own.get(name, name): value for name, value in weights.items()} for weights in candidates[1:]]
    return max(candidates, key=lambda weights: len(weights.keys() & own.keys()))


def check_any_fits(state: Mapping[str, Tensor], loaded: int, own: Mapping[str, object], model: str) -> None:
    """Refuse weights of which a model took none.

    Args:
        state: The weights, under names that fit best.
        loaded: How many of them the model took.
        own: The model's names, with anything.
        model: Name of the model, for the message.

    Raises:
        CheckpointError: If the model has weights and took none.
    """
    if loaded or not own:
        return
    hint = ''
    for part in ('backbone.', 'neck.', 'decode_head.'):
        inside = {key.removeprefix(part) for key in state if key.startswith(part)}
        if inside & own.keys():
            hint = f" It has weights that fit under {part!r}: give init_cfg prefix={part!r}."
        elif any(part + key in own for key in state):
            hint = (f" It has weights of the model's {part[:-1]} alone: name it as checkpoint of "
                    f'model.{part[:-1]}.init_cfg.')
    raise CheckpointError(
        f'the checkpoint has no weight that fits {model}, which would stay as it was initialised: it has '
        f'{some_of(state)}, and {model} expects {some_of(own)}.{hint} Give a checkpoint of this model')


def plugged_layers(names: Collection[str]) -> list[str]:
    """Layers with an operator beside them, as the names of a model's weights tell."""
    found = dict.fromkeys(name.partition('.base.')[0] for name in names if '.base.' in name)
    new = {name.partition('.new.')[0] for name in names if '.new.' in name}
    return [layer for layer in found if layer in new and f'{layer}.gamma' in names]


def check_plugged(state: Mapping[str, object], own: Mapping[str, object], model: str) -> None:
    """Refuse weights of layers with operators plugged into them, for a model that has the layers without operators.

    Args:
        state: The weights, under names that fit best.
        own: The model's names, with anything.
        model: Name of the model, for the message.

    Raises:
        CheckpointError: The layers would stay as they were initialised.
    """
    layers = [layer for layer in plugged_layers(state) if f'{layer}.gamma' not in own and any(
        name.startswith(f'{layer}.') for name in own)]
    if layers:
        raise CheckpointError(
            f'the checkpoint is of a model with operators plugged into {len(layers)} of its layers, e.g. {layers[0]}, '
            f"and {model} has none there. Give the config of its training, with type='plugconv_mm.plug' and the rules, "
            "which is in the checkpoint, as meta['cfg']; or take the operators out of the trained model with "
            'plugconv_mm.unplug, and save it')
