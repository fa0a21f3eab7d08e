"""Published checkpoints turned into ours."""
import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from plugconv_mm.checkpoint.cvnets import with_our_parts
from plugconv_mm.checkpoint.families import CELLS, FAMILIES, Family, recognise
from plugconv_mm.checkpoint.state_dict import find_weights, is_profiled, normalised
from plugconv_mm.errors import CheckpointError

_CLASSIFIER = re.compile(r'(fc|head|classifier)\.')
# Names after the last map, and those of mmpretrain's ImageClassifier: the norm behind the pooling, the linear layer,
# which KernelWarehouse may mix, and the expansion of ParC-Net, a part of the neck here.
_CLASSIFIER_NAMES = (
    (r'norm\.(weight|bias)', r'backbone.norm3.\1'),
    (r'(?:fc|head|classifier)\.(?:\d+\.|fc\.)?(?:conv\.)?(weight|bias|attention\..+)', r'head.fc.\1'),
    (r'conv_1x1_exp\.(?:block\.)?conv\.weight', 'neck.conv.0.weight'),
    (r'conv_1x1_exp\.(?:block\.)?norm\.(.+)', r'neck.conv.1.\1'),
)
# Parts of a whole detector or segmentor that may hold one of the families; all else passes as it is.
_PARTS = ('backbone.', 'neck.', 'decode_head.')


def some_of(keys: Iterable[str]) -> str:
    """The first few of these keys, for messages."""
    keys = sorted(keys)
    return ', '.join(repr(key) for key in keys[:4]) + (', ...' if len(keys) > 4 else '')


def split_parts(state: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The parts that may hold a family, by their prefix and without it: the whole state dict where it has no parts."""
    parts, state = {}, with_our_parts(state)
    for prefix in _PARTS:
        part = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if part:
            parts[prefix] = part
    return parts or {'': state}


def _without_backbone(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A classification checkpoint, nothing but a backbone and perhaps a classifier, without its prefix."""
    others = [key for key in state if not key.startswith('backbone.')]
    if len(others) == len(state) or not all(map(_CLASSIFIER.match, others)):
        return state
    return {key.removeprefix('backbone.'): value for key, value in state.items()}


def _dropped(state: dict[str, Tensor], family: Family) -> set[str]:
    dropped = {key for key in state if re.fullmatch(family.dropped, key)}
    if any('.attention.' in key for key in dropped):
        # A dynamic classifier draws from cells of its own, in the warehouse that was named last.
        cells = [key for key in state if re.match(CELLS, key)]
        dropped.add(max(cells, key=lambda key: int(key.rpartition('.')[2])))
    return dropped


def _classifier_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The classifier in a published state dict, under the names of mmpretrain's ImageClassifier; empty without one."""
    family, classifier = recognise(state), {}
    for key in _dropped(state, family) if family else ():
        if re.match(CELLS, key):  # of a linear layer: the published one has them as of a convolution along one axis
            classifier['head.warehouse.weights.0'] = state[key].reshape(*state[key].shape[:3], 1, 1)
        for pattern, name in _CLASSIFIER_NAMES:
            if match := re.fullmatch(pattern, key):
                classifier[match.expand(name)] = state[key]
    return classifier if any(name.startswith('head.') for name in classifier) else {}


def _convert_part(state: dict[str, Tensor], family: Family, prefix: str) -> dict[str, Tensor]:
    converted, unknown, dropped = {}, [], _dropped(state, family)
    for key, value in state.items():
        if key in dropped:
            continue
        ours = family.rename(key)
        if not re.fullmatch(family.known, ours):
            unknown.append(prefix + key)
            continue
        if ours in converted:
            raise CheckpointError(f'two keys of this {family.name} checkpoint would both become {ours!r}, one is '
                                  f'{prefix + key!r}')
        for pattern, sizes in family.shapes:
            if re.search(pattern, ours) and not (value.dim() == len(sizes) and all(
                    want in (None, got) for want, got in zip(sizes, value.shape, strict=True))):
                want = ', '.join('*' if size is None else str(size) for size in sizes)
                raise CheckpointError(f'{prefix + key!r} of this {family.name} checkpoint has shape '
                                      f'{tuple(value.shape)}, expected ({want})')
        converted[ours] = value
    if unknown:
        raise CheckpointError(
            f'{len(unknown)} of {len(state)} keys are unknown in a {family.name} checkpoint: {some_of(unknown)}. '
            f'Families known: {", ".join(f.name for f in FAMILIES)}')
    return converted


def convert_parts(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Convert the parts of a state dict in which a family is recognised.

    Returns:
        Our state dict, and the family found under each prefix.

    Raises:
        CheckpointError: As :func:`convert_official`.
    """
    converted, found = {}, {}
    state = with_our_parts(state)
    parts = split_parts(state)
    for prefix, part in parts.items():
        family = recognise(part)
        if family:
            found[prefix] = family.name
            part = _convert_part(part, family, prefix)
        converted.update({prefix + key: value for key, value in part.items()})
    if not found:
        raise CheckpointError(
            f'none of the {len(state)} keys tells a family: {some_of(state)}. '
            f'Families known: {", ".join(f.name for f in FAMILIES)}')
    if '' not in parts:
        converted.update({key: value for key, value in state.items() if not key.startswith(_PARTS)})
    return converted, found


def with_classifier(state: dict[str, Tensor], backbone: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """A converted backbone and the classifier beside it in the published state dict; None where there is none.

    Args:
        state: The published state dict.
        backbone: The result of :func:`convert_parts`.

    Returns:
        Weights under the names of mmpretrain's ImageClassifier.
    """
    classifier = _classifier_of(state)
    return {**{f'backbone.{key}': value for key, value in backbone.items()}, **classifier} if classifier else None


def has_classifier(state: dict[str, Tensor]) -> bool:
    """Whether this is the state dict of a published classifier, its last layer included."""
    return bool(_classifier_of(state))


def _whole_classifier(state: dict[str, Tensor], backbone: dict[str, Tensor]) -> dict[str, Tensor]:
    if all(any(key.startswith(part) for key in backbone) for part in ('backbone.', 'head.')):
        return backbone  # which has such names already
    whole = with_classifier(state, backbone)
    if whole is None:
        raise CheckpointError(f'there is no classifier among the {len(state)} keys: {some_of(state)}. It is a '
                              'checkpoint of a backbone alone, or of a whole detector or segmentor')
    return whole


def convert_official(state_dict: Mapping, entry: str = '', classifier: bool = False) -> dict[str, Tensor]:
    """Turn the state dict of a published checkpoint into ours.

    It takes the state dict bare or wrapped (under ``state_dict``, ``model`` and the like), with the prefixes
    ``module.`` or ``backbone.``, or that of a whole detector or segmentor, of which backbone, neck and head are
    converted under their prefix and all else passes as it is. The family is told from the keys. Classifiers, and the
    counters that profilers leave, are dropped. A state dict of ours comes back unchanged.

    Args:
        state_dict: Mapping from names to tensors, or a checkpoint that holds one. It is not changed; the tensors are
            shared with the result.
        entry: The entry of the checkpoint that holds the weights, such as ``'model_ema'`` for averaged ones, which
            are taken unasked only where there are no others.
        classifier: Whether to keep the classifier: the result has the names of mmpretrain's ImageClassifier then,
            ``backbone.``, ``neck.`` and ``head.``.

    Returns:
        A new state dict, to be loaded with ``strict=True``.

    Raises:
        CheckpointError: If no family is recognised, keys are unknown to it, a tensor's shape contradicts its name, or
            the argument is no state dict, or `classifier` is asked for and there is none.

    Example:
        >>> import torch
        >>> convert_official({'model': {'module.layer3.3.parc_H.pe': torch.zeros(1, 8, 14, 1)}}).keys()
        dict_keys(['layer3.3.conv2.parc_h.position_embedding'])
    """
    return convert_with_report(state_dict, entry, classifier)[0]


def convert_with_report(state_dict: Mapping, entry: str = '',
                        classifier: bool = False) -> tuple[dict[str, Tensor], str]:
    """:func:`convert_official`, and a line that says what was recognised and how many tensors went where."""
    weights = find_weights(state_dict, entry)
    state = normalised(weights.state)
    if not (classifier and any(key.startswith('head.fc.') for key in state)):  # no classifier of mmpretrain's names
        state = _without_backbone(state)
    converted, found = convert_parts(state)
    if classifier:
        converted = _whole_classifier(state, converted)
    families = ', '.join(f'{name} (under {prefix!r})' if prefix else name for prefix, name in found.items())
    renamed = len(converted.keys() - state.keys())
    report = (f'{families}: {len(converted)} tensors, {renamed} of them renamed, '
              f'{len(weights.state) - len(converted)} dropped')
    counters = sum(map(is_profiled, weights.state))
    if counters:
        report += f', of which {counters} are counters of a profiler'
    return converted, '; '.join(filter(None, (report, weights.choice)))
