"""Checkpoints that an interruption at any time leaves whole."""
import contextlib
import glob
import os
from collections.abc import Callable

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.fileio import BaseStorageBackend
from mmengine.hooks import CheckpointHook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from plugconv_mm.atomic_write import atomic_write
from plugconv_mm.registry import HOOKS


class _RemoveLater:
    """A file backend that postpones removals.

    Attributes:
        removed: The postponed calls, each as a function and a path.
    """

    def __init__(self, backend: BaseStorageBackend) -> None:
        self._backend = backend
        self.removed: list[tuple[Callable[[str], None], str]] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self.removed.append((self._backend.remove, path))

    def rmtree(self, path: str) -> None:
        self.removed.append((self._backend.rmtree, path))


_KEY = 'evaluated'  # in the meta data of the checkpoint


def _schedule_needs_evaluations(runner: Runner) -> bool:
    """Whether a schedule steps after evaluations, as ``ReduceOnPlateauLR`` does."""
    schedulers = runner.param_schedulers or []
    groups = schedulers.values() if isinstance(schedulers, dict) else [schedulers]  # a list for each optimizer
    return any(getattr(scheduler, 'need_val_args', False) for group in groups for scheduler in group)


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, with its arguments, made safe against interruptions at any time.

    The files themselves are written atomically by :mod:`plugconv_mm.compat.loading`. This hook removes old checkpoints
    only once the new one is complete, replaces ``last_checkpoint`` atomically, and removes incomplete files of killed
    processes. A resumed run first does the evaluation that was due at its checkpoint, if that was not finished.

    If a schedule depends on evaluations (``ReduceOnPlateauLR``), the checkpoint is saved again after its evaluation,
    with the schedule's step. ``evaluated`` in the meta data tells whether a checkpoint was saved after its evaluation,
    as the best ones are; ``last_evaluation`` in the work dir lists the iterations whose evaluations were finished.
    """

    _record: str | None = None  # the file with the iterations whose evaluation was finished
    _is_evaluated = False  # whether the weights are those of the last evaluation
    _not_evaluated: int | None = None  # the iteration of the last checkpoint, if it was saved before its evaluation

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        self._record = os.path.join(runner.work_dir, 'last_evaluation')
        if is_main_process():
            useless = [path for folder in {str(self.out_dir), str(runner.work_dir)}
                       for path in glob.glob(os.path.join(glob.escape(folder), '.*.[0-9]*.part'))]
            for path in useless if runner.iter else [*useless, self._record]:
                with contextlib.suppress(OSError):
                    os.unlink(path)
        if runner.iter and not self._is_evaluated:
            self._not_evaluated = runner.iter
        if self._evaluation_is_missing(runner):
            runner.logger.info('The evaluation of this checkpoint was not finished; it comes first.')
            runner.val_loop.run()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self._is_evaluated = (checkpoint.get('meta') or {}).get(_KEY, False)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint['meta'][_KEY] = self._is_evaluated
        if self._is_evaluated:  # FlexibleRunner counts an iteration more, as for one that is saved during training
            checkpoint['meta'].update(epoch=runner.epoch, iter=runner.iter)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        self._is_evaluated = False

    def _evaluation_is_missing(self, runner: Runner) -> bool:
        """Whether an evaluation was due at the checkpoint from which the run is resumed, and was not finished."""
        loop = runner.train_loop
        if not runner.iter or self._is_evaluated or runner._val_loop is None or not isinstance(
                loop, (EpochBasedTrainLoop, IterBasedTrainLoop)):
            return False
        loop._decide_current_val_interval()
        by_epoch = isinstance(loop, EpochBasedTrainLoop)
        now, end = (loop.epoch, loop.max_epochs) if by_epoch else (loop.iter, loop.max_iters)
        within_epoch = by_epoch and loop.iter != loop.epoch * len(loop.dataloader)
        if within_epoch or now < loop.val_begin or (now % loop.val_interval and now != end):
            return False
        if _schedule_needs_evaluations(runner):
            return True  # its step is not in this checkpoint
        finished = [is_main_process() and str(runner.iter) in self._evaluations()]
        broadcast_object_list(finished)
        return not finished[0]

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self._is_evaluated = True
        super().after_val_epoch(runner, metrics)
        if self._record is None:  # not in training
            return
        if self._not_evaluated == runner.iter and _schedule_needs_evaluations(runner):
            self._save_checkpoint_with_step(
                runner, runner.epoch if self.by_epoch else runner.iter, dict(epoch=runner.epoch, iter=runner.iter))
        self._note_evaluation(runner.iter, True)

    def _evaluations(self) -> list[str]:
        """The iterations whose evaluations were finished."""
        try:
            with open(self._record) as file:
                return file.read().split()
        except FileNotFoundError:
            return []

    def _note_evaluation(self, iteration: int, is_finished: bool) -> None:
        if is_main_process():
            before = self._evaluations()
            after = [other for other in before if other != str(iteration)] + [str(iteration)] * is_finished
            if after != before:
                self._write(self._record, ' '.join(after))

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        outdated = None
        if self.max_keep_ckpts > 0 and step not in list(self.keep_ckpt_ids)[-1:]:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated = self.filename_tmpl.format(self.keep_ckpt_ids.popleft())
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        filename = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, filename)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        self._not_evaluated = None if self._is_evaluated else meta['iter']
        if not self._is_evaluated:
            self._note_evaluation(meta['iter'], False)  # a checkpoint that it replaces may have been evaluated
        runner.save_checkpoint(
            self.out_dir, filename, self.file_client_args, save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler, meta=meta, by_epoch=self.by_epoch,
            backend_args=self.backend_args, **self.args)
        if not is_main_process():
            return
        self._write(os.path.join(runner.work_dir, 'last_checkpoint'), self.last_ckpt)
        if outdated:
            path = self.file_backend.join_path(self.out_dir, outdated)
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)
            elif self.file_backend.isdir(path):  # a sharded one
                self.file_backend.rmtree(path)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, float]) -> None:
        backend = self.file_backend
        self.file_backend = later = _RemoveLater(backend)
        try:
            super()._save_best_checkpoint(runner, metrics)
        finally:
            self.file_backend = backend
        best = {getattr(self, 'best_ckpt_path', None), *getattr(self, 'best_ckpt_path_dict', {}).values()}
        for remove, path in later.removed:
            if path not in best:
                remove(path)

    @staticmethod
    def _write(path: str, text: str) -> None:
        with atomic_write(path) as file:
            file.write(text.encode())
