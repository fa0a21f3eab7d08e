"""Says which backend ParC takes."""
from collections import Counter

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper

from plugconv_mm.ops import ParC2d
from plugconv_mm.registry import HOOKS


@HOOKS.register_module()
class ParCBackendHook(Hook):
    """Logs once in training, validation and test which backend the ParC layers of the model take at which map size.

    It looks at the first iteration only. The tools register it by themselves; a model without ParC logs nothing.
    """

    def __init__(self):
        self._done = set()
        self._handles = []
        self._calls = Counter()

    def _before_iter(self, runner, batch_idx, data_batch=None, mode='train'):
        if mode in self._done:
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self._calls.clear()
        self._handles = [layer.register_forward_hook(self._note) for layer in model.modules()
                         if isinstance(layer, ParC2d)]

    def _note(self, layer, args, output):
        height, width = args[0].shape[2:]
        self._calls[height, width, layer.select_backend(args[0])] += 1

    def _after_iter(self, runner, batch_idx, data_batch=None, outputs=None, mode='train'):
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
                      '--cfg-options model.backbone.parc_backend=spatial (or fft, gemm).', logger='current')
