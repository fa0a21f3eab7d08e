"""A log of the backends that ParC takes."""
from collections import Counter

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from plugconv_mm.ops import ParC2d
from plugconv_mm.registry import HOOKS


@HOOKS.register_module()
class ParCBackendHook(Hook):
    """A log, once in training, validation and test, of the backend of the ParC layers at each map size.

    It records the first iteration only. The tools register it themselves; for a model without ParC it logs nothing.
    """

    def __init__(self) -> None:
        self._done: set[str] = set()
        self._handles: list[RemovableHandle] = []
        self._calls: Counter[tuple[int, int, str]] = Counter()

    def _before_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None,
                     mode: str = 'train') -> None:
        if mode in self._done:
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self._calls.clear()
        self._handles = [layer.register_forward_hook(self._note) for layer in model.modules()
                         if isinstance(layer, ParC2d)]

    def _note(self, layer: ParC2d, args: tuple[Tensor, ...], output: Tensor) -> None:
        height, width = args[0].shape[2:]
        self._calls[height, width, layer.select_backend(args[0])] += 1

    def _after_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: object = None,
                    mode: str = 'train') -> None:
        if mode in self._done:
            return
        self._done.add(mode)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        if self._calls:
            used = ', '.join(f'{backend} at {height}x{width} ({count}x)'
                             for (height, width, backend), count in sorted(self._calls.items(), reverse=True))
            print_log(f'ParC in the first {mode} iteration, by the size of the map: {used}. Others can be forced with '
                      '--cfg-options model.backbone.parc_backend=spatial (or fft, gemm), and of plugged ParC with '
                      'backend in its rule.', logger='current')
