"""One set of buffers, such as the running statistics of batch norms, for all processes."""
from bisect import bisect

from mmengine.dist import all_reduce_params
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.runner import IterBasedTrainLoop

from plugconv_mm.registry import HOOKS


@HOOKS.register_module()
class SyncBuffersHook(Hook):
    """Averages the buffers over the processes ahead of each evaluation and each checkpoint.

    Without SyncBN every process has running statistics of its own. They would evaluate different models, and the
    checkpoint would hold that of the first. The same goes for the buffers of averaged weights (``EMAHook``), which a
    checkpoint holds in the place of the model's. mmengine's hook of this name leaves them, and comes after the
    checkpoint where it is counted in iterations; this one comes before it.
    """
    priority = 'NORMAL'

    def before_train(self, runner):
        self.by_iter = isinstance(runner.train_loop, IterBasedTrainLoop)
        self.savers = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook) and not hook.by_epoch]

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        is_last = self.is_last_train_iter(runner)
        if self.by_iter and (is_last or self.every_n_train_iters(runner, self._val_interval(runner))) or any(
                is_last and hook.save_last or self.every_n_train_iters(runner, hook.interval, hook.save_begin)
                for hook in self.savers):
            self._average(runner)

    def after_train_epoch(self, runner):
        if not self.by_iter:
            self._average(runner)

    @staticmethod
    def _val_interval(runner):
        """That after this iteration; the loop decides on it once all hooks are through."""
        loop = runner.train_loop
        return loop.dynamic_intervals[bisect(loop.dynamic_milestones, runner.iter + 2) - 1]

    @staticmethod
    def _average(runner):
        # Where EMAHook comes later, an average of buffers that are the same everywhere is so, too.
        models = [runner.model, *(hook.ema_model.module for hook in runner.hooks if isinstance(hook, EMAHook))]
        all_reduce_params([buffer for model in models for buffer in model.buffers()], op='mean')
