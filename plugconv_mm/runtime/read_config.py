"""Configs read from files, and changed by the command line and the machine."""
import difflib
import functools
import importlib.util
import os
import re
from argparse import Namespace
from pathlib import Path

from mmengine.config import Config
from mmengine.config import utils as config_utils

from plugconv_mm.compat.packages import own_files
from plugconv_mm.errors import ConfigError
from plugconv_mm.runtime.distributed import distribute, revert_sync_bn


def find_config(config: str) -> Path:
    """The file of a config that is named by its path, or as ``package::path`` below a package's configs.

    Raises:
        ConfigError: There is no such file; the message has the nearest names.
    """
    package, colons, name = config.rpartition('::')
    folder = Path('configs')
    if colons:
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        if spec is None:
            raise ConfigError(f'{config} is a config of {package}, which is not installed')
        root = own_files() if package == 'plugconv_mm' else Path(spec.origin).parent / '.mim'
        folder = root / 'configs'
    file = folder / name if colons else Path(config)
    if not file.is_file():
        near = difflib.get_close_matches(file.name, [p.name for p in folder.rglob('*.py')], n=2)
        hint = f' Did you mean {" or ".join(near)}?' if near else ''
        raise ConfigError(f'there is no config {config}.{hint}')
    return file


def read_config(config: str) -> Config:
    """Read a config as its file has it.

    Args:
        config: Its path, or ``package::path``.

    Raises:
        ConfigError: There is no such file, or it cannot be read.
    """
    file = find_config(config)
    if not hasattr(config_utils.load, 'cache_info'):
        # For each base of another package mmengine reads all the metafiles of that package.
        config_utils.load = functools.cache(config_utils.load)
    try:
        # Said to be of the style with _base_, it may have bases that import packages, as RepLKNet's in mmpretrain does.
        is_old = re.search(r'^_base_\s*=', file.read_text(encoding='utf-8'), re.MULTILINE)
        return Config.fromfile(file, lazy_import=False if is_old else None)
    except Exception as error:  # a config is code of the user's: whatever goes wrong in it is theirs to mend
        raise ConfigError(f'cannot read the config {config}: {type(error).__name__}: {error}') from error


def load_config(args: Namespace) -> Config:
    """Read ``args.config`` and merge the options of :func:`~plugconv_mm.runtime.options.make_parser` into it.

    Raises:
        ConfigError: The file cannot be read, or an option does not fit it.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = read_config(args.config)
    if args.cfg_options:
        try:
            cfg.merge_from_dict(args.cfg_options)
        except (KeyError, TypeError, AssertionError, IndexError) as error:
            raise ConfigError(f'--cfg-options does not fit {args.config}: {error}') from error
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(args.config).stem)
    cfg.launcher = args.launcher
    if args.launcher != 'none':
        distribute(cfg)
    revert_sync_bn(cfg)
    if cfg.get('default_scope') == 'mmdet':
        from mmdet.utils import setup_cache_size_limit_of_dynamo
        setup_cache_size_limit_of_dynamo()
    return cfg
