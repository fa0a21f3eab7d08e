"""One set of buffers, such as the running statistics of batch norms, for all processes."""
from mmengine.dist import all_reduce_params
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import IterBasedTrainLoop

from plugconv_mm.registry import HOOKS


@HOOKS.register_module()
class SyncBuffersHook(Hook):
    """Averages the buffers over the processes ahead of each evaluation and each checkpoint.

    Without SyncBN every process has running statistics of its own. They would evaluate different models, and the
    checkpoint would hold that of the first. mmengine's hook of this name comes after the checkpoint where training
    is counted in iterations; this one comes before it.
    """
    priority = 'NORMAL'

    def before_train(self, runner):
        self.by_iter = isinstance(runner.train_loop, IterBasedTrainLoop)
        self.intervals = {runner.val_interval} | {
            hook.interval for hook in runner.hooks if isinstance(hook, CheckpointHook) and not hook.by_epoch}

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if self.by_iter and (self.is_last_train_iter(runner) or any(
                self.every_n_train_iters(runner, interval) for interval in self.intervals)):
            all_reduce_params(runner.model.buffers(), op='mean')

    def after_train_epoch(self, runner):
        if not self.by_iter:
            all_reduce_params(runner.model.buffers(), op='mean')
