"""Averages of buffers, such as the running statistics of batch norms, over processes."""
from bisect import bisect

from mmengine.dist import all_reduce_params
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.runner import IterBasedTrainLoop, Runner

from plugconv_mm.registry import HOOKS


@HOOKS.register_module()
class SyncBuffersHook(Hook):
    """An average of all buffers over the processes before each evaluation and each checkpoint.

    Without SyncBN every process has its own running statistics. The processes would evaluate different models, and a
    checkpoint would hold that of the first. The buffers of averaged weights (``EMAHook``), which a checkpoint holds in
    place of the model's, are averaged as well. mmengine's hook of this name does not average these, and runs after the
    checkpoint in a training that counts iterations; this one runs before it.
    """
    priority = 'NORMAL'

    def before_train(self, runner: Runner) -> None:
        self.by_iter = isinstance(runner.train_loop, IterBasedTrainLoop)
        self.savers = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook) and not hook.by_epoch]

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        is_last = self.is_last_train_iter(runner)
        if self.by_iter and (is_last or self.every_n_train_iters(runner, self._val_interval(runner))) or any(
                is_last and hook.save_last or self.every_n_train_iters(runner, hook.interval, hook.save_begin)
                for hook in self.savers):
            self._average(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        if not self.by_iter:
            self._average(runner)

    @staticmethod
    def _val_interval(runner: Runner) -> int:
        """The interval of evaluations after this iteration, which the loop sets only after all hooks have run."""
        loop = runner.train_loop
        return loop.dynamic_intervals[bisect(loop.dynamic_milestones, runner.iter + 2) - 1]

    @staticmethod
    def _average(runner: Runner) -> None:
        # If EMAHook runs later, it averages buffers that are equal in all processes, with equal results.
        models = [runner.model, *(hook.ema_model.module for hook in runner.hooks if isinstance(hook, EMAHook))]
        all_reduce_params([buffer for model in models for buffer in model.buffers()], op='mean')
