"""Names in a config that no registry knows, and arguments that do not fit, said in one message.

mmengine, mmcv and the packages on them look names up in some ten places, each of which fails in a way of its own, some
without the name. Therefore the lookups and builds of the registries are watched, which are all the same.
"""
import contextlib
import difflib
import re
import sys
import traceback
from collections.abc import Iterator
from types import CodeType
from typing import Any

from mmengine.registry import Registry, build_from_cfg

from plugconv_mm.errors import ConfigError, UserError
from plugconv_mm.registry import PlugInRegistry


@contextlib.contextmanager
def config_errors() -> Iterator[None]:
    """Raise a ConfigError in the place of an error that comes from a name or an argument in a config.

    Raises:
        ConfigError: A name is in no registry, or the arguments in a config do not fit what they are for. Other errors
            stay as they are.
    """
    with _watched() as watch:
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            message = watch.explain(error)
            if message is None:
                raise
            raise ConfigError(message) from error


_FAILED_BUILD = 'plugconv_mm_failed_build'  # attribute of an error: the type of the innermost build that it ended


class _Watch:
    """The last lookup in a registry.

    The function that looked a name up is noted by its frame's number and code: the frame itself would keep alive all
    that its callers hold, such as a checkpoint.
    """

    def __init__(self) -> None:
        self.name, self.registry, self.found = '', None, True
        self.caller: tuple[int, CodeType] | None = None

    def explain(self, error: Exception) -> str | None:
        """The message for an error that passed through the watched code; None if it comes from no config."""
        # A function that has returned since is not in the traceback: it knew how to go on without the name.
        looked_up = any((id(frame), frame.f_code) == self.caller
                        for frame, _ in traceback.walk_tb(error.__traceback__))
        if looked_up and not self.found and isinstance(
                error, (KeyError, RuntimeError, TypeError, AttributeError, AssertionError)):
            return _explain_unknown(self.name, self.registry)
        if hasattr(error, _FAILED_BUILD):
            return _explain_build(getattr(error, _FAILED_BUILD), error)
        if looked_up and self.caller[1] is build_from_cfg.__code__:  # not called by way of a registry
            return _explain_build(self.name, error)
        return None


@contextlib.contextmanager
def _watched() -> Iterator[_Watch]:
    watch = _Watch()
    get, build = Registry.get, Registry.build

    def watched_get(registry: Registry, key: str) -> Any:
        watch.caller = None
        try:
            found = get(registry, key)
        except RuntimeError:  # "Failed to get", of a name that looks like one of a module
            _note_lookup(watch, registry, key, None, methods)
            raise
        _note_lookup(watch, registry, key, found, methods)
        return found

    def watched_build(registry: Registry, cfg: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return build(registry, cfg, *args, **kwargs)
        except Exception as error:
            if not hasattr(error, _FAILED_BUILD) and isinstance(cfg, dict):
                kind = cfg.get('type', '')
                setattr(error, _FAILED_BUILD, kind if isinstance(kind, str) else getattr(kind, '__name__', kind))
            raise

    methods = {method.__code__ for method in (get, watched_get, PlugInRegistry.get)}
    Registry.get, Registry.build = watched_get, watched_build
    try:
        yield watch
    finally:
        Registry.get, Registry.build = get, build


def _note_lookup(watch: _Watch, registry: Registry, key: str, found: Any, methods: set) -> None:
    frame = sys._getframe(2)
    while frame is not None and frame.f_code in methods:  # registries ask each other
        frame = frame.f_back
    watch.caller = None if frame is None else (id(frame), frame.f_code)
    watch.name, watch.registry, watch.found = key, registry, found is not None


def _explain_build(kind: str, error: Exception) -> str | None:
    wrong_arguments = isinstance(error, TypeError) and re.search(r'\bargument', str(error))
    if not wrong_arguments and not isinstance(error, (ValueError, AssertionError, ImportError, NotImplementedError)):
        return None
    last, _ = list(traceback.walk_tb(error.__traceback__))[-1]
    text = str(error) or traceback.extract_tb(error.__traceback__)[-1].line
    return (f'cannot build {kind} as the config asks: {text}\n'
            f'(raised in {last.f_globals.get("__name__")}; PLUGCONV_TRACEBACK=1 shows where)')


def _explain_unknown(name: str, registry: Registry) -> str:
    scope, kind, root = registry.scope, registry.name, registry.root
    named, _, bare = name.rpartition('.')
    known = {}  # the full names, by bare name; the scope's own first, then ours
    for full in sorted(_names(root), key=lambda full: (not full.startswith(f'{scope}.'),
                                                       not full.startswith('plugconv_mm.'), full)):
        if not named or full.startswith(f'{named}.'):
            known.setdefault(full.rpartition('.')[2], full)
    if bare in known:
        suggested = [known[bare]]
    else:  # capitals are where names are mistaken most
        lower = {match.lower(): full for match, full in reversed(known.items())}
        suggested = [lower[m] for m in difflib.get_close_matches(bare.lower(), lower, n=3, cutoff=0.7)]
    message = f'the config names {name}, which is not a {kind} that {named or scope} knows.'
    if suggested:
        message += f' Did you mean {" or ".join(f"type={full!r}" for full in suggested)}?'
    if (suggested or [name])[0].startswith('plugconv_mm.'):
        message += "\nThe config also needs: custom_imports = dict(imports=['plugconv_mm'])"
    elif not suggested:
        message += " If it is your own, the config needs: custom_imports = dict(imports=['its.module'])"
    return message


def _names(registry: Registry) -> Iterator[str]:
    """The names that a registry and those below it know, as 'scope.Name'."""
    registry.import_from_location()
    declared = registry.declared() if isinstance(registry, PlugInRegistry) else ()
    for name in {*registry.module_dict, *declared}:
        yield f'{registry.scope}.{name}'
    for child in registry.children.values():
        yield from _names(child)
