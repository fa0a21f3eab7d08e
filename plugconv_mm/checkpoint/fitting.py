"""Names of weights as a model has them."""
import contextlib
from collections.abc import Mapping

from torch import Tensor

from plugconv_mm.checkpoint.conversion import convert_parts, some_of
from plugconv_mm.checkpoint.state_dict import bare_names
from plugconv_mm.errors import CheckpointError


def fit_to_model(state: dict[str, Tensor], own: Mapping[str, object]) -> dict[str, Tensor]:
    """Rename weights as the model calls them, if it calls them otherwise.

    Only the model tells whether ``model.`` in front of all names is a wrapper's prefix, or whether names that another
    package has, too, such as mmpretrain's of HorNet, are to become ours. Of the names as they are, without prefixes or
    with the model's, and converted, those are taken of which most are the model's; as they are, where as many are.

    Args:
        state: The weights; they are not changed.
        own: The model's names, with anything.

    Returns:
        The weights, shared, under the names that fit best.
    """
    if state.keys() <= own.keys() or own.keys() <= state.keys():
        return state
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
