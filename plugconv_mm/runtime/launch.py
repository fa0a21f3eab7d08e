"""What ``tools/train.py`` and ``tools/test.py`` share: options, reading and checking a config, and plain messages.

A mistake of the user's ends with one message that says what to do; an error in the code keeps its traceback.
"""
import argparse
import atexit
import contextlib
import difflib
import errno
import functools
import gc
import importlib.util
import os
import re
import sys
import traceback
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.config import utils as config_utils
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.logging import print_log
from mmengine.registry import FUNCTIONS, MODELS, OPTIMIZERS, RUNNERS, Registry
from mmengine.runner import Runner
from mmengine.utils import is_installed

from plugconv_mm.checkpoint.state_dict import split_entry
from plugconv_mm.datasets import check_digits
from plugconv_mm.engine.hooks import ParCBackendHook
from plugconv_mm.errors import ConfigError, DataError, NonFiniteError, UserError
from plugconv_mm.registry import PlugInRegistry


class _KeyValues(DictAction):
    """``key=value`` pairs; anything else is a usage error and not a traceback."""

    def __call__(self, parser, namespace, values, option_string=None):
        try:
            super().__call__(parser, namespace, values, option_string)
        except (ValueError, AssertionError):
            parser.error(f'{option_string} takes key=value pairs, such as train_cfg.max_epochs=12, got {values}')


def make_parser(description, runs=True, configs=None, first=None):
    """The options that commands with a config have in common; those that run it have more of them.

    Args:
        description (str): What the command does.
        runs (bool): Whether it trains or tests.
        configs (str | None): As argparse's ``nargs``, for commands that take several configs.
        first (tuple[str, str] | None): Name and help of an argument before the config.
    """
    parser = argparse.ArgumentParser(description=description)
    if first:
        parser.add_argument(first[0], help=first[1])
    parser.add_argument('config', nargs=configs, help='config file of mmdet, mmseg or mmpretrain; package::path is one '
                        'that a package brings along, as in mmpretrain::resnet/resnet50_8xb32_in1k.py')
    parser.add_argument('--cfg-options', nargs='+', action=_KeyValues, metavar='KEY=VALUE',
                        help='override settings of the config, e.g. train_dataloader.batch_size=4 or key="[a,b]"')
    if not runs:
        parser.set_defaults(work_dir=None, launcher='none', local_rank=0)
        return parser
    parser.add_argument('--work-dir', help='folder of logs and results (default: work_dirs/CONFIG)')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    # torch.distributed.launch passes this one; torchrun sets LOCAL_RANK instead
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser


def find_config(config):
    """The file of a config that is named by its path, or as ``package::path`` below a package's configs.

    Raises:
        ConfigError: There is no such file; the message names those whose names are near.
    """
    package, colons, name = config.rpartition('::')
    folder = Path('configs')
    if colons:
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        if spec is None:
            raise ConfigError(f'{config} is a config of {package}, which is not installed')
        home = Path(spec.origin).parent
        folder = home / '.mim/configs'
        if package == 'plugconv_mm' and not folder.is_dir():  # a clone that was not installed
            folder = home.parent / 'configs'
    file = folder / name if colons else Path(config)
    if not file.is_file():
        near = difflib.get_close_matches(file.name, [p.name for p in folder.rglob('*.py')], n=2)
        hint = f' Did you mean {" or ".join(near)}?' if near else ''
        raise ConfigError(f'there is no config {config}.{hint}')
    return file


def load_config(args):
    """Read ``args.config`` and merge what every command line may change.

    Raises:
        ConfigError: The file cannot be read, or an option does not fit it.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    file = find_config(args.config)
    if not is_installed(MODULE2PACKAGE['mmseg']):
        MODULE2PACKAGE['mmseg'] = 'mmseg'  # the continuation of mmsegmentation has another name; 'mmseg::' finds it so
    if not hasattr(config_utils.load, 'cache_info'):
        # For each base of another package mmengine reads all the metafiles of that package.
        config_utils.load = functools.cache(config_utils.load)
    try:
        # Said to be of the style with _base_, it may have bases that import packages, as RepLKNet's in mmpretrain does.
        is_old = re.search(r'^_base_\s*=', file.read_text(encoding='utf-8'), re.MULTILINE)
        cfg = Config.fromfile(file, lazy_import=False if is_old else None)
    except Exception as error:  # a config is code of the user's: whatever goes wrong in it is theirs to mend
        raise ConfigError(f'cannot read the config {args.config}: {type(error).__name__}: {error}') from error
    if args.cfg_options:
        try:
            cfg.merge_from_dict(args.cfg_options)
        except (KeyError, TypeError, AssertionError, IndexError) as error:
            raise ConfigError(f'--cfg-options does not fit {args.config}: {error}') from error
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / file.stem)
    cfg.launcher = args.launcher
    if args.launcher != 'none':
        _distribute(cfg)
    _revert_sync_bn(cfg)
    if cfg.get('default_scope') == 'mmdet':
        from mmdet.utils import setup_cache_size_limit_of_dynamo
        setup_cache_size_limit_of_dynamo()
    return cfg


def _distribute(cfg):
    """See to it that the processes have what they run on."""
    here, gpus = int(os.environ.get('LOCAL_WORLD_SIZE', 1)), torch.cuda.device_count()
    if 0 < gpus < here:
        raise ConfigError(f'{here} processes need a GPU each, and this machine has {gpus}: start at most {gpus}')
    if not torch.cuda.is_available():
        _distribute_on_cpu(cfg)


def _distribute_on_cpu(cfg):
    """mmengine's own start assumes a GPU a process."""
    if cfg.launcher != 'pytorch':
        raise ConfigError(f'--launcher {cfg.launcher} needs GPUs; without them use --launcher pytorch and torchrun')
    if 'RANK' not in os.environ:
        raise ConfigError('--launcher pytorch needs the environment that torchrun sets: use tools/dist_train.sh')
    torch.distributed.init_process_group('gloo')
    cfg.setdefault('model_wrapper_cfg', dict(
        type='MMDistributedDataParallel', broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False)))
    cfg.model_wrapper_cfg.device_ids = None


def _revert_sync_bn(cfg):
    """SyncBN needs several processes, each with a GPU. Elsewhere it becomes BN, whose weights have the same names."""
    several = cfg.launcher != 'none' and os.environ.get('WORLD_SIZE') != '1'
    if several and torch.cuda.is_available():
        return
    count = 0
    for _, node in _dicts(cfg.get('model')):
        if node.get('type') == 'SyncBN':
            node.type = 'BN'
            count += 1
    if count:
        why = 'it needs GPUs; each process takes statistics of its own' if several else 'there is one process'
        print_log(f'SyncBN became BN in {count} places of the model: {why}.', logger='current')


def _dicts(node, path='model'):
    """The dicts of a config, with where they are in it."""
    if isinstance(node, dict):
        yield path, node
    parts = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    for key, value in parts:
        yield from _dicts(value, f'{path}.{key}')


def set_pretrain_dataloaders(cfg, **extra):
    """Give mmpretrain's dataloaders the defaults that its own tools give them; its configs rely on them."""
    if cfg.get('default_scope') != 'mmpretrain':
        return
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if cfg.get(name) is not None:
            cfg[name] = ConfigDict(pin_memory=True, collate_fn=dict(type='default_collate'), **extra) | cfg[name]
            if not cfg[name].get('num_workers'):
                cfg[name].pop('persistent_workers', None)


# How the folders of the data sets look, by the type of the dataset.
_COCO = """annotations/instances_{train,val}2017.json
train2017/*.jpg
val2017/*.jpg"""
_LAYOUTS = {
    'CocoDataset': _COCO,
    'CocoPanopticDataset': _COCO.replace('instances', 'panoptic') + '\nannotations/panoptic_{train,val}2017/*.png',
    'ADE20KDataset': 'images/{training,validation}/*.jpg\nannotations/{training,validation}/*.png',
    'VOCDataset': """VOC2007/Annotations/*.xml
VOC2007/ImageSets/Main/{trainval,test}.txt
VOC2007/JPEGImages/*.jpg
VOC2012/Annotations/*.xml
VOC2012/ImageSets/Main/trainval.txt
VOC2012/JPEGImages/*.jpg""",
    'ImageNet': """train/n01440764/*.JPEG, and 999 more folders
val/n01440764/*.JPEG, and 999 more folders
    or, with meta/{train,val}.txt of lines such as `n01440764/n01440764_10026.JPEG 0`, laid out as these say""",
    'ImageNet21k': """train/n01440764/*.JPEG, and 21840 more folders
meta/train.txt, where there is one, of lines such as `n01440764/n01440764_10026.JPEG 0`""",
}


def type_name(kind):
    """The last part of a type's name; configs have the name, with its scope perhaps, or the class itself."""
    return kind.__name__ if isinstance(kind, type) else str(kind).rpartition('.')[2]


def make_resumable(cfg):
    """Add the hooks with which an interrupted training loses nothing, whatever the config has of its own.

    Its ``CheckpointHook`` becomes an :class:`~plugconv_mm.engine.hooks.AtomicCheckpointHook` with the same arguments,
    and a :class:`~plugconv_mm.engine.hooks.ResumableRandomnessHook` is added.
    """
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    checkpoint = hooks.setdefault('checkpoint', ConfigDict(type='CheckpointHook', interval=1))
    if checkpoint and checkpoint.get('type') in ('CheckpointHook', 'mmengine.CheckpointHook', CheckpointHook):
        checkpoint.type = 'plugconv_mm.AtomicCheckpointHook'
    custom = list(cfg.get('custom_hooks') or [])
    if all(type_name(hook.get('type')) != 'ResumableRandomnessHook' for hook in custom):
        custom.append(ConfigDict(type='plugconv_mm.ResumableRandomnessHook'))
    cfg.custom_hooks = custom


def check_data(cfg, *dataloaders):
    """Look for the data of these dataloaders, so that what is missing is said before a model is built.

    Args:
        cfg (Config): The whole config. Its ``prepare_data``, where it has one, is the command that builds the data.
        *dataloaders (str): Names such as 'train_dataloader'; 'val_dataloader' stands for the evaluator, too.

    Raises:
        DataError: Something is not there, or half-built; the message says what, where it was looked for, and how the
            folder should look.
    """
    missing, kinds, settings = {}, {}, {}
    for name in dataloaders:
        for place, dataset in inner_datasets((cfg.get(name) or {}).get('dataset'), f'{name}.dataset'):
            root = dataset.get('data_root') or ''
            if cfg.get('prepare_data'):
                check_digits(root, cfg.prepare_data)
            for path in _expected(dataset):
                if not _is_there(path):
                    missing.setdefault(path, {})[name] = None
                    kinds[type_name(dataset.get('type')), root] = None
                    settings[f'{place}.data_root=FOLDER'] = None
        name = name.replace('_dataloader', '_evaluator')
        evaluators = cfg.get(name) or []
        for number, evaluator in enumerate([evaluators] if isinstance(evaluators, dict) else evaluators):
            place = name if isinstance(evaluators, dict) else f'{name}.{number}'
            for key in ('ann_file', 'seg_prefix'):
                if evaluator.get(key) and not _is_there(evaluator[key]):
                    missing.setdefault(evaluator[key], {})[name] = None
                    settings[f'{place}.{key}=PATH'] = None
    if not missing:
        return
    lines = [f'    {path}   ({", ".join(names)})' for path, names in missing.items()]
    message = f'data that the config reads is not there (looked for from {os.getcwd()}):\n' + '\n'.join(lines)
    for kind, root in kinds:
        if kind in _LAYOUTS:
            tree = '\n'.join(f'    {os.path.join(root, line)}' if not line.startswith(' ') else f'    {line.strip()}'
                             for line in _LAYOUTS[kind].splitlines())
            message += f'\nFor {kind} the folder should look like this:\n{tree}'
            break
    raise DataError(f'{message}\nPut the data there (a symbolic link does), or say where it is with --cfg-options '
                    + ' '.join(settings))


def _expected(dataset):
    """The files and folders that a dataset of one of these types reads."""
    root, prefix = dataset.get('data_root') or '', dataset.get('data_prefix') or {}
    parts = [dataset.get('ann_file'), *(prefix.values() if isinstance(prefix, dict) else [prefix])]
    kind = type_name(dataset.get('type'))
    if kind == 'VOCDataset':
        home = prefix.get('sub_data_root', '')
        parts += [os.path.join(home, 'Annotations'), os.path.join(home, 'JPEGImages')]
    elif kind.startswith('ImageNet') and dataset.get('split'):
        parts.append(dataset.split)
    paths = [os.path.join(root, part) for part in parts if isinstance(part, str) and part]
    return [root] if root and not _is_there(root) else paths


def _is_there(path):
    """Whether a path is a file, or a folder with something in it, or not on this machine's disk at all."""
    if '://' in path:
        return True
    if os.path.isdir(path):
        with os.scandir(path) as entries:
            return any(entries)
    return os.path.exists(path)


def check_weights(cfg):
    """Look for the weights that the parts of the model start from.

    Raises:
        ConfigError: A file is not there; the message says how to go on.
    """
    for path, node in _dicts(cfg.get('model')):
        start = node.get('init_cfg')
        if isinstance(start, dict) and type_name(start.get('type')) in (
                'Pretrained', 'PretrainedInit') and not _is_there(split_entry(start.checkpoint)[0]):
            raise ConfigError(
                f'the config starts from the weights {start.checkpoint}, which are not there (looked for from '
                f'{os.getcwd()}). Put them there, published ones as they are, or name another file with '
                f'--cfg-options {path}.init_cfg.checkpoint=FILE (weights of a classifier trained here also need '
                f'{path}.init_cfg.prefix=backbone.), or start from random weights with {path}.init_cfg=None')


def inner_datasets(dataset, place):
    """The datasets inside wrappers such as RepeatDataset and ConcatDataset, with where they are in the config."""
    if not isinstance(dataset, dict):
        return
    if 'dataset' in dataset:
        yield from inner_datasets(dataset['dataset'], f'{place}.dataset')
    elif dataset.get('datasets'):
        for number, part in enumerate(dataset['datasets']):
            yield from inner_datasets(part, f'{place}.datasets.{number}')
    else:
        yield place, dataset


def is_sharded(cfg):
    """Whether a config shards the model over its processes."""
    return type_name((cfg.get('strategy') or {}).get('type')).endswith('FSDPStrategy')


def build_runner(cfg):
    """A runner of the type that the config asks for, which says which backends ParC takes.

    Raises:
        ConfigError: A hook needs whole weights, and the config shards them.
    """
    if cfg.get('launcher', 'none') == 'none' and is_sharded(cfg):
        cfg.pop('runner_type')
        cfg.pop('strategy')
        print_log('The model is not sharded: there is one process.', logger='current')
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    if is_sharded(cfg) and any(isinstance(hook, EMAHook) for hook in runner.hooks):
        raise ConfigError('EMAHook averages whole weights, and the config shards them: leave out one of the two, the '
                          'hook or runner_type and strategy')
    runner.register_hook(ParCBackendHook())
    return runner


@contextlib.contextmanager
def plain_errors(program):
    """End with one message, and exit code 1, where the user can mend it; PLUGCONV_TRACEBACK=1 shows the traceback."""
    try:
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


def leave_group():
    """Destroy the group of processes, and end its threads before Python finishes.

    A thread of gloo that lets go of a tensor while Python finishes aborts a process that has done all it should. The
    threads end with the group, which models hold, and these are held by the reference cycles of a runner.
    """
    torch.distributed.destroy_process_group()
    atexit.register(gc.collect)


def explain(error):
    """One message for an error that the user can mend, or None."""
    if isinstance(error, (ConfigError, DataError, NonFiniteError)):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (f'{error}. The disk is full: free some of it. Checkpoints written before are whole, and --resume goes '
                'on from the last one')
    frames = list(traceback.walk_tb(error.__traceback__))
    last = frames[-1][0]
    if isinstance(error, UserError):
        return str(error)
    unknown = _unknown_type(error, frames)
    if unknown:
        return _explain_unknown(*unknown)
    builds = [frame for frame, _ in frames if frame.f_code.co_name == 'build_from_cfg' and 'registry' in frame.f_locals]
    if not builds:
        ours = last.f_globals.get('__name__', '').startswith('plugconv_mm.engine.hooks.')
        return str(error) if ours and isinstance(error, (ValueError, NotImplementedError)) else None
    wrong_arguments = isinstance(error, TypeError) and re.search(r'\bargument', str(error))
    if wrong_arguments or isinstance(error, (ValueError, AssertionError, ImportError, NotImplementedError)):
        what = builds[-1].f_locals.get('obj_type', '')
        what = what if isinstance(what, str) else getattr(what, '__name__', what)
        text = str(error) or traceback.extract_tb(error.__traceback__)[-1].line
        return (f'cannot build {what} as the config asks: {text}\n'
                f'(raised in {last.f_globals.get("__name__")}; PLUGCONV_TRACEBACK=1 shows where)')
    return None


# Where mmengine, mmcv and the packages on them keep the name that they look up.
_NAMES_OF_TYPES = ('obj_type', 'layer_type', 'scheduler_type', 'collate_fn_type', 'worker_init_fn_type',
                   'model_wrapper_type')
_PACKAGES = ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'plugconv_mm')


def _unknown_type(error, frames):
    """The name, and the registry that does not know it, where that is what an error comes from; else None.

    The places that look types up fail in ways of their own, some without the name: it is among their variables.
    """
    if not isinstance(error, (KeyError, RuntimeError, TypeError, AttributeError, AssertionError)):
        return None
    for frame, _ in reversed(frames):
        package = frame.f_globals.get('__name__', '').partition('.')[0]
        if package not in _PACKAGES:
            continue  # what the lookup gave was called there
        variables = frame.f_locals
        if isinstance(variables.get('self'), Registry):
            return (variables['key'], variables['self']) if 'key' in variables else None
        if 'optimizer_cls' in variables and variables['optimizer_cls'] is None:
            return variables['self'].optimizer_cfg['type'], OPTIMIZERS
        variable = next((v for v in _NAMES_OF_TYPES if isinstance(variables.get(v), str)), None)
        if variable is None:
            return None
        registry = variables.get('registry', FUNCTIONS if variable.endswith('_fn_type') else MODELS)
        return None if _is_found(registry, variables[variable]) else (variables[variable], registry)
    return None


def _is_found(registry, name):
    with contextlib.suppress(RuntimeError), registry.switch_scope_and_registry(None) as scoped:
        return scoped.get(name) is not None
    return False


def _root(registry):
    while registry.parent is not None:
        registry = registry.parent
    return registry


def _explain_unknown(name, registry):
    scope, kind, root = registry.scope, registry.name, _root(registry)
    named, _, bare = name.rpartition('.')
    known = {}  # the full names, by bare name; the scope's own first, then ours
    for full in sorted(_names(root), key=lambda full: (not full.startswith(f'{scope}.'),
                                                       not full.startswith('plugconv_mm.'), full)):
        if not named or full.startswith(f'{named}.'):
            known.setdefault(full.rpartition('.')[2], full)
    if bare in known:
        suggested = [known[bare]]
    else:  # capitals are where names are mistaken most
        lower = {match.lower(): full for match, full in reversed(known.items())}
        suggested = [lower[m] for m in difflib.get_close_matches(bare.lower(), lower, n=3, cutoff=0.7)]
    message = f'the config names {name}, which is not a {kind} that {named or scope} knows.'
    if suggested:
        message += f' Did you mean {" or ".join(f"type={full!r}" for full in suggested)}?'
    if (suggested or [name])[0].startswith('plugconv_mm.'):
        message += "\nThe config also needs: custom_imports = dict(imports=['plugconv_mm'])"
    elif not suggested:
        message += " If it is your own, the config needs: custom_imports = dict(imports=['its.module'])"
    return message


def _names(registry: Registry):
    """What this registry and those below it know, as 'scope.Name'."""
    registry.import_from_location()
    declared = registry.declared() if isinstance(registry, PlugInRegistry) else ()
    for name in {*registry.module_dict, *declared}:
        yield f'{registry.scope}.{name}'
    for child in registry.children.values():
        yield from _names(child)
