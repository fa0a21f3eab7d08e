"""Plain messages for errors that the user can mend; an error in the code keeps its traceback."""
import contextlib
import errno
import os
import sys
from collections.abc import Iterator

import torch

from plugconv_mm.errors import CheckpointSizeError, UserError
from plugconv_mm.runtime.configs_of_size import configs_of_size
from plugconv_mm.runtime.distributed import leave_group
from plugconv_mm.runtime.registry_errors import config_errors


@contextlib.contextmanager
def plain_errors(program: str) -> Iterator[None]:
    """End with one message, and exit code 1, where the user can mend it; PLUGCONV_TRACEBACK=1 shows the traceback.

    Args:
        program: The name of the command, which the message begins with.
    """
    try:
        with config_errors():
            yield
    except Exception as error:
        message = explain(error)
        if message is None or os.environ.get('PLUGCONV_TRACEBACK') == '1':
            raise
        sys.stdout.flush()
        sys.exit(f'{program}: error: {message}')
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            leave_group()


def explain(error: BaseException) -> str | None:
    """One message for an error that the user can mend, or None."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (f'{error}. The disk is full: free some of it. Checkpoints written before are whole, and --resume goes '
                'on from the last one')
    if isinstance(error, CheckpointSizeError) and error.network:
        configs = configs_of_size(error.network, error.size, error.model)
        return f'{error}. Configs that take it: {", ".join(configs)}' if configs else str(error)
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ValueError) and str(error).startswith('Expected more than 1 value per channel when training'):
        return (f'{error}. A batch norm over a map of one position, as behind a pooling to 1x1, needs at least two '
                'samples in each process: set --cfg-options train_dataloader.batch_size=2 or more, and '
                'train_dataloader.drop_last=True where the last batch of an epoch has one sample. With several GPUs, '
                'SyncBN takes its statistics over all processes')
    return None
