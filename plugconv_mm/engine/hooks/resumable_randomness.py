"""Random numbers and an order of the data that a resumed run reproduces."""
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner
from torch.utils.data import BatchSampler

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
    """The indices of a batch, whose iteration seeds the process that loads the batch, such as a worker.

    Attributes:
        indices: Indices of the samples.
        numbers: The seed.
    """
    indices: list[int]
    numbers: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        _seed(*self.numbers)
        yield from self.indices


class _Batches:
    """A batch sampler whose batches are seeded by the iteration in which they are used.

    Args:
        batches: The batch sampler that it replaces.
        seed: The run's seed.

    Attributes:
        iteration: The iteration of the next batch.
        skipped: Number of batches to leave out at the start of an epoch.
    """

    def __init__(self, batches: BatchSampler, seed: int) -> None:
        self._batches, self._seed = batches, seed
        self.iteration = self.skipped = 0
        for name in ('sampler', 'batch_size', 'drop_last'):  # read by the data loader and by mmengine
            if hasattr(batches, name):
                setattr(self, name, getattr(batches, name))

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[_Batch]:
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
    """Random numbers of training that are a function of the run's seed, the iteration, and the process.

    A resumed run then draws the same numbers as an uninterrupted one: for the transforms of the images, in any worker,
    the samples of the losses, and stochastic depth. They do not depend on evaluations or the number of workers. A run
    that was started without a seed is resumed with that of its checkpoint. A run whose checkpoint was written within an
    epoch is resumed with the rest of that epoch, where mmengine would start the epoch again.
    """

    priority = 'HIGHEST'
    _trained = 0  # batches of the current epoch that were used

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self._trained = (checkpoint.get('meta') or {}).get(_KEY, 0)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint['meta'][_KEY] = self._trained

    def before_train(self, runner: Runner) -> None:
        loader = runner.train_loop.dataloader
        self._batches = None
        if getattr(loader, 'batch_sampler', None) is None:
            return
        # If no seed was given, the checkpoint's was set after the sampler had been built with another one.
        sampler = getattr(loader.batch_sampler, 'sampler', None)
        if isinstance(getattr(sampler, 'seed', None), int) and not runner._randomness_cfg.get('diff_rank_seed'):
            sampler.seed = runner.seed
        self._batches = _Batches(loader.batch_sampler, runner.seed)
        # A DataLoader does not accept another batch sampler once it is built, though nothing has been loaded so far.
        object.__setattr__(loader, 'batch_sampler', self._batches)

    def before_train_epoch(self, runner: Runner) -> None:
        if not runner.iter:
            self._trained = 0  # the checkpoint was loaded for its weights, not to resume from
        if self._batches is None:
            return
        loop, self._batches.iteration = runner.train_loop, runner.iter
        if not isinstance(loop, IterBasedTrainLoop):
            self._batches.skipped = self._trained
        else:
            # Samplers with skip() are at the right batch after it; of others the loop drops batches from the start.
            if not hasattr(loop.dataloader.sampler, 'skip'):
                self._batches.iteration = 0
            if loop.dataloader_iterator._iterator is not None:
                _undo_start(loop.dataloader_iterator, loop.dataloader)
            loop.dataloader_iterator = type(loop.dataloader_iterator)(loop.dataloader)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        _seed(runner.seed, runner.iter, get_rank(), 0)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        self._trained += 1

    def after_train_epoch(self, runner: Runner) -> None:
        self._trained = 0
