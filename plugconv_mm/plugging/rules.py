"""Rules that say which layers of a model get which operator."""
import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.nn.modules.utils import _pair

from plugconv_mm.errors import PlugError
from plugconv_mm.plugging.blocks import BLOCKS
from plugconv_mm.plugging.convs import CONVS

STARTS = ('scratch', 'residual', 'embed')
_PAIRS = ('kernel_size', 'stride', 'padding', 'dilation')
_WHERE = ('type', 'groups', 'in_channels', 'out_channels', 'last', *_PAIRS)


@dataclass(frozen=True)
class Rule:
    """Which layers get which operator, and how they start.

    Args:
        target: The full name of a layer; ``'re:…'`` with a regular expression that matches full names; or a function
            of the name and the module that says whether it is meant.
        to: The operator: ``dict(type='plugconv_mm.ParCHW2d', …)`` with a type of ``plugconv_mm.plugging.CONVS``
            and its own arguments; a function that makes it of the arguments of ``nn.Conv2d``; or None, which leaves the
            layers alone. For attention, these are the arguments of a depthwise 1x1, and a dict may have ``grid`` and
            ``prefix``, see ``plugconv_mm.plug``. With a type of ``plugconv_mm.plugging.BLOCKS`` the rule means whole
            modules, such as residual blocks, and no single layers.
        exclude: Names, as of `target`, that are not meant.
        where: What the layers have to be like: ``type`` (name of the class or of one of its parents), ``kernel_size``,
            ``stride``, ``padding``, ``dilation``, ``groups`` (or ``'depthwise'``), ``in_channels``, ``out_channels``;
            and ``last``, how many of those that are left in each stage, from its end.
        start: ``'scratch'``: the operator takes the place of the layer. ``'residual'``: it is added to the layer, times
            a factor for each channel that starts at zero, so that the model computes what it did. ``'embed'``: its
            kernel holds that of the layer, see :mod:`plugconv_mm.plugging.embedding`.
        unfit: ``'error'`` or ``'skip'`` for layers that the operator cannot replace.

    Raises:
        PlugError: A setting that is not known.
    """
    target: str | Callable[[str, nn.Module], bool]
    to: Mapping[str, Any] | Callable[..., nn.Module] | None
    exclude: str | Sequence[str] = ()
    where: Mapping[str, Any] = field(default_factory=dict)
    start: str = 'scratch'
    unfit: str = 'error'

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.where) - set(_WHERE)):
            raise PlugError(f'{self.said}: where knows {", ".join(_WHERE)}, got {", ".join(unknown)}')
        if self.start not in STARTS:
            raise PlugError(f'{self.said}: start is one of {", ".join(STARTS)}, got {self.start!r}')
        if self.unfit not in ('error', 'skip'):
            raise PlugError(f'{self.said}: unfit is error or skip, got {self.unfit!r}')
        if isinstance(self.to, Mapping) and self.kind not in {**CONVS, **BLOCKS}:
            raise PlugError(f'{self.said}: to has a type of {", ".join((*CONVS, *BLOCKS))}, got '
                            f'{self.to.get("type")!r}')

    @property
    def said(self) -> str:
        """The rule in a message."""
        return f'rule {self.target!r}' if isinstance(self.target, str) else f'rule {self.target.__name__}'

    @property
    def kind(self) -> str:
        """Name of the operator; that of the function which makes it, where it is no dict."""
        if isinstance(self.to, Mapping):
            return str(self.to.get('type')).removeprefix('plugconv_mm.')
        return getattr(self.to, '__name__', type(self.to).__name__)

    @property
    def own(self) -> dict[str, Any]:
        """The operator's own arguments."""
        return {key: value for key, value in self.to.items() if key != 'type'} if isinstance(self.to, Mapping) else {}

    def means(self, name: str, module: nn.Module) -> bool:
        """Whether name and ``where`` fit, ``last`` aside."""
        patterns = [self.exclude] if isinstance(self.exclude, str) else self.exclude
        named = self.target(name, module) if callable(self.target) else _matches(self.target, name)
        return bool(named) and not any(_matches(pattern, name) for pattern in patterns) and all(
            _is(module, key, value) for key, value in self.where.items() if key != 'last')

    def keep_last(self, names: Sequence[str]) -> list[str]:
        """Of the names that are meant, the last ones of each stage, where the rule asks for them."""
        last = self.where.get('last')
        return [name for i, name in enumerate(names)
                if last is None or [stage_of(other) for other in names[i:]].count(stage_of(name)) <= last]


def as_rules(rules: Sequence[Rule | Mapping[str, Any]]) -> list[Rule]:
    """Make rules of dicts with their arguments.

    Raises:
        PlugError: A dict with other keys.
    """
    made = []
    for rule in rules:
        if isinstance(rule, Mapping):
            known = Rule.__dataclass_fields__
            if not {'target', 'to'} <= set(rule) <= set(known):
                raise PlugError(f'a rule has target and to, and may have {", ".join(list(known)[2:])}; got '
                                f'{", ".join(map(str, rule))}')
            rule = Rule(**rule)
        made.append(rule)
    return made


def stage_of(name: str) -> str:
    """The stage of a layer: its name up to the last number in it, ``layer4`` of ``layer4.2.conv2``."""
    parts = name.split('.')
    numbers = [i for i, part in enumerate(parts) if part.isdigit()]
    return '.'.join(parts[:numbers[-1] if numbers else -1])


def near_names(target: str, names: Sequence[str]) -> str:
    """Up to five names like the target of a rule, for a message."""
    bare = re.sub(r'[\\^$.*+?()\[\]{}|]+', '.', target.removeprefix('re:'))
    near = difflib.get_close_matches(bare, names, n=5, cutoff=0.3) or list(names)[:5]
    return ', '.join(near)


def _matches(pattern: str, name: str) -> bool:
    return bool(re.fullmatch(pattern[3:], name)) if pattern.startswith('re:') else pattern == name


def _is(module: nn.Module, key: str, value: Any) -> bool:
    if key == 'type':
        names = {kind.__name__ for kind in type(module).__mro__}
        return (value if isinstance(value, str) else value.__name__) in names
    has = getattr(module, key, None)
    if key == 'groups' and value == 'depthwise':
        return has == getattr(module, 'in_channels', None) and has != 1
    if key in _PAIRS and not isinstance(value, str) and not isinstance(has, str):
        return has is not None and tuple(_pair(has)) == tuple(_pair(value))
    return has == value
