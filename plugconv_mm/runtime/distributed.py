"""Training and testing in several processes: their start, batch norms in one and in several, and the end."""
import atexit
import gc
import os

import torch
from mmengine.config import Config
from mmengine.logging import print_log

from plugconv_mm.errors import ConfigError
from plugconv_mm.runtime.config_tree import walk


def distribute(cfg: Config) -> None:
    """Check that each process has a GPU, or start the group of processes on CPUs.

    Raises:
        ConfigError: There are more processes than GPUs, or the launcher needs GPUs and there are none.
    """
    here, gpus = int(os.environ.get('LOCAL_WORLD_SIZE', 1)), torch.cuda.device_count()
    if 0 < gpus < here:
        raise ConfigError(f'{here} processes need a GPU each, and this machine has {gpus}: start at most {gpus}')
    if not torch.cuda.is_available():
        distribute_on_cpu(cfg)


def distribute_on_cpu(cfg: Config) -> None:
    """Start the group of processes over gloo; mmengine's own start assumes a GPU for each process.

    Raises:
        ConfigError: The processes were not started by torchrun.
    """
    if cfg.launcher != 'pytorch':
        raise ConfigError(f'--launcher {cfg.launcher} needs GPUs; without them use --launcher pytorch and torchrun')
    if 'RANK' not in os.environ:
        raise ConfigError('--launcher pytorch needs the environment that torchrun sets: use tools/dist_train.sh')
    torch.distributed.init_process_group('gloo')
    cfg.setdefault('model_wrapper_cfg', dict(
        type='MMDistributedDataParallel', broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False)))
    cfg.model_wrapper_cfg.device_ids = None


def revert_sync_bn(cfg: Config) -> None:
    """Replace SyncBN by BN, whose weights have the same names, where there are not several processes with GPUs."""
    several = cfg.launcher != 'none' and os.environ.get('WORLD_SIZE') != '1'
    if several and torch.cuda.is_available():
        return
    count = 0
    for _, node in walk(cfg.get('model')):
        if node.get('type') == 'SyncBN':
            node.type = 'BN'
            count += 1
    if count:
        why = 'it needs GPUs; each process takes statistics of its own' if several else 'there is one process'
        print_log(f'SyncBN became BN in {count} places of the model: {why}.', logger='current')


def leave_group() -> None:
    """Destroy the group of processes, and end its threads before Python finishes.

    A thread of gloo that lets go of a tensor while Python finishes aborts a process that has done all it should. The
    threads end with the group, which models hold, and these are held by the reference cycles of a runner.
    """
    torch.distributed.destroy_process_group()
    atexit.register(gc.collect)
