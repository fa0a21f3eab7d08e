"""Random numbers and an order of the data that a resumed run has again."""
import itertools
import random
from dataclasses import dataclass

import numpy as np
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop

from plugconv_mm.registry import HOOKS

_KEY = 'trained_batches'  # in the meta data of the checkpoint


def _seed(*numbers: int) -> None:
    """Seed Python, NumPy and PyTorch from these numbers."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@dataclass
class _Batch:
    """The indices of a batch; who goes through them to load it, a worker for example, is seeded first."""
    indices: list[int]
    numbers: tuple[int, ...]

    def __len__(self):
        return len(self.indices)

    def __iter__(self):
        _seed(*self.numbers)
        yield from self.indices


class _Batches:
    """A batch sampler whose batches know the iteration for which they are loaded."""

    def __init__(self, batches, seed: int):
        self._batches, self._seed = batches, seed
        self.iteration = self.skipped = 0
        for name in ('sampler', 'batch_size', 'drop_last'):  # that others look for
            if hasattr(batches, name):
                setattr(self, name, getattr(batches, name))

    def __len__(self):
        return len(self._batches)

    def __iter__(self):
        for indices in itertools.islice(self._batches, self.skipped, None):
            yield _Batch(indices, (self._seed, self.iteration, get_rank(), 1))
            self.iteration += 1


def _undo_start(iterator, loader) -> None:
    """Stop the loading that mmengine 0.10.7 starts when it builds its loop; later versions start with the first batch.

    Workers that persist would go on with the batch sampler of before. And the sampler's indices, which workers have
    drawn from by then, would end with the iterator that is dropped.
    """
    if loader._iterator is not None:
        loader._iterator._shutdown_workers()
        loader._iterator = None
    iterator._iterator = None
    sampler = getattr(loader.batch_sampler, 'sampler', None)
    if isinstance(sampler, InfiniteSampler):
        sampler.indices = sampler._indices_of_rank()


@HOOKS.register_module()
class ResumableRandomnessHook(Hook):
    """Makes all randomness of training a function of the run's seed, the iteration, and the process.

    A resumed run then draws what the uninterrupted one would have drawn: the transforms of the pictures, in whatever
    worker, the samples of the losses, stochastic depth. Evaluations in between, and the number of workers, change
    nothing. A run that was started without a seed goes on with that of its checkpoint, and one whose checkpoint was
    written within an epoch goes on with the rest of that epoch, where mmengine would start it again.
    """

    priority = 'HIGHEST'
    _trained = 0  # batches of the epoch that is under way

    def after_load_checkpoint(self, runner, checkpoint):
        self._trained = (checkpoint.get('meta') or {}).get(_KEY, 0)

    def before_save_checkpoint(self, runner, checkpoint):
        checkpoint['meta'][_KEY] = self._trained

    def before_train(self, runner):
        loader = runner.train_loop.dataloader
        self._batches = None
        if getattr(loader, 'batch_sampler', None) is None:
            return
        # Where no seed was given, that of the checkpoint came when the sampler had another one already.
        sampler = getattr(loader.batch_sampler, 'sampler', None)
        if isinstance(getattr(sampler, 'seed', None), int) and not runner._randomness_cfg.get('diff_rank_seed'):
            sampler.seed = runner.seed
        self._batches = _Batches(loader.batch_sampler, runner.seed)
        # A DataLoader that is built refuses another batch sampler, but nothing has been loaded so far.
        object.__setattr__(loader, 'batch_sampler', self._batches)

    def before_train_epoch(self, runner):
        if not runner.iter:
            self._trained = 0  # the checkpoint was one to start from, not to resume
        if self._batches is None:
            return
        loop, self._batches.iteration = runner.train_loop, runner.iter
        if not isinstance(loop, IterBasedTrainLoop):
            self._batches.skipped = self._trained
        else:
            # Samplers that can skip are at the right place after it; of others the loop drops batches from the start.
            if not hasattr(loop.dataloader.sampler, 'skip'):
                self._batches.iteration = 0
            if loop.dataloader_iterator._iterator is not None:
                _undo_start(loop.dataloader_iterator, loop.dataloader)
            loop.dataloader_iterator = type(loop.dataloader_iterator)(loop.dataloader)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        _seed(runner.seed, runner.iter, get_rank(), 0)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self._trained += 1

    def after_train_epoch(self, runner):
        self._trained = 0
