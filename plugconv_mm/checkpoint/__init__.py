"""Checkpoints: reading without running code, writing without half-written files, converting published ones.

Nothing but PyTorch is needed to import this module; safetensors and mmengine are used where they are asked for.
"""
import argparse
import contextlib
import os
import pathlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from plugconv_mm.atomic_write import atomic_write

__all__ = ['FAMILIES', 'Family', 'convert_official', 'convert_with_report', 'load_from_local',
           'read_checkpoint', 'state_dict_of', 'write_checkpoint']

# --------------------------------------------------------------------------------------------------------------------
# Published families


@dataclass(frozen=True)
class Family:
    """One published code base: how its checkpoints are recognised and renamed.

    Everything is matched against keys without prefixes, such as those of a backbone or a neck alone.

    Attributes:
        name: Name for messages.
        signature: Regular expression found in at least one key of every checkpoint of this family, be it in the
            published naming or in ours, and in no checkpoint of another.
        known: Regular expression that each of our keys matches in full. What does not match it after renaming, and is
            not dropped, is an unknown key.
        renames: (pattern, replacement) pairs, each applied to every key with ``re.sub``, in this order. Our own keys
            must pass unchanged.
        dropped: Regular expression of the published keys that have no place in ours, matched in full: classifiers.
        shapes: (pattern, sizes) pairs: a tensor under one of our keys in which the pattern is found must have these
            sizes, None standing for any.
    """
    name: str
    signature: str
    known: str
    renames: tuple[tuple[str, str], ...] = ()
    dropped: str = r'(fc|head|classifier)\..*'
    shapes: tuple[tuple[str, tuple[int | None, ...]], ...] = ()


_NORM = r'(weight|bias|running_mean|running_var|num_batches_tracked)'
_GNCONV = r'(proj_in\.(weight|bias)|pws\.\d+\.(weight|bias)|proj_out\.(weight|bias)|dwconv\.(weight|bias|' \
          r'complex_weight|dw\.weight|(pre|post)_norm\.(weight|bias)))'

# ParC as the code base of Fast-ParC names it, once its direction is renamed.
_GCC = ((r'(\.parc_[hw])\.pe$', r'\1.position_embedding'), (r'(\.parc_[hw])\.gcc_conv\.', r'\1.'))
_PARC_SHAPES = ((r'\.parc_h\.(weight|position_embedding)$', (None, None, None, 1)),
                (r'\.parc_w\.(weight|position_embedding)$', (None, None, 1, None)))
_KW_ATTENTION = rf'(fc[123]\.(weight|bias)|norm1\.{_NORM}|basis_bias)'
_CELLS = re.compile(r'warehouse_manager\.weights\.\d+')
_KW_SHAPES = ((_CELLS.pattern, (None, None, None, 1, 1)), )

FAMILIES = (
    Family(
        'ParC-ResNet',
        signature=r'^layer\d+\.\d+\.(parc_[HW]\.|conv2\.parc_[hw]\.)',
        known=(rf'(conv1|[bg]n1|stem\.\d+)\.{_NORM}'
               rf'|layer[1-4]\.\d+\.(conv[123]|[bg]n[123]|downsample\.\d+)\.{_NORM}'
               r'|layer[1-4]\.\d+\.conv2\.parc_[hw]\.(weight|bias|position_embedding)'),
        renames=((r'\.parc_H\.', '.conv2.parc_h.'), (r'\.parc_W\.', '.conv2.parc_w.'), *_GCC),
        shapes=_PARC_SHAPES,
    ),
    Family(
        'HorFPN',
        signature=r'^fpn_convs\.\d+\.(conv\.)?proj_in\.',
        known=rf'(lateral_convs|fpn_convs)\.\d+\.(conv\.((weight|bias)|{_GNCONV})|[bgi]n\.{_NORM})',
        renames=((r'^(fpn_convs\.\d+\.)(proj_in|dwconv|pws|proj_out)\.', r'\1conv.\2.'), ),
        dropped=r'(?!)',
        shapes=((r'\.complex_weight$', (None, None, None, 2)), (r'\.dwconv\.weight$', (None, 1, 7, 7))),
    ),
    Family(
        'HorNet',
        signature=r'^stages\.\d+\.\d+\.gnconv\.',
        known=(rf'downsample_layers\.[0-3]\.[01]\.(weight|bias)|norm[0-3]\.(weight|bias)'
               rf'|stages\.[0-3]\.\d+\.(gamma[12]|(norm[12]|pwconv[12])\.(weight|bias)|gnconv\.{_GNCONV})'),
        dropped=r'(norm|fc|head|classifier)\..*',
        shapes=((r'\.complex_weight$', (None, None, None, 2)), (r'\.dwconv\.weight$', (None, 1, 7, 7))),
    ),
    Family(
        'ParC-ConvNeXt',
        signature=r'^stages\.\d+\.\d+\.(gcc_[HW]\.|dwconv\.parc_[hw]\.)',
        known=(r'downsample_layers\.[0-3]\.[01]\.(weight|bias)|norm[0-3]\.(weight|bias)'
               r'|stages\.[0-3]\.\d+\.(gamma|(dwconv|norm|pwconv[12])\.(weight|bias)'
               r'|dwconv\.parc_[hw]\.(weight|bias|position_embedding))'),
        renames=((r'\.gcc_H\.', '.dwconv.parc_h.'), (r'\.gcc_W\.', '.dwconv.parc_w.'), *_GCC),
        dropped=r'(norm|fc|head|classifier)\..*',
        shapes=_PARC_SHAPES,
    ),
    Family(
        'ParC-MobileNetV2',
        signature=r'^features\.\d+\.(gcc_[HW]\.|parc\.parc_[hw]\.)',
        known=(rf'features\.\d+\.(\d|conv\.\d(\.\d)?|(pw_expand|pw_linear)\.[01]|bn)\.{_NORM}'
               r'|features\.\d+\.parc\.parc_[hw]\.(weight|bias|position_embedding)'),
        renames=((r'\.gcc_H\.', '.parc.parc_h.'), (r'\.gcc_W\.', '.parc.parc_w.'), *_GCC),
        shapes=_PARC_SHAPES,
    ),
    Family(
        'ParC-Net',
        signature=r'^layer_\d\.\d\.spatial_global_rep\.\d+\.(meta_kernel_|branch_)',
        known=(rf'conv_1\.(conv|norm)\.{_NORM}|layer_\d\.\d\.(exp_1x1|conv_3x3|red_1x1)\.(conv|norm)\.{_NORM}'
               rf'|layer_\d\.1\.(dim_adaptive\.0|channel_adaptive|local_global_fusion)\.(conv|norm)\.{_NORM}'
               r'|layer_\d\.1\.dim_adaptive\.1\.weight'
               rf'|layer_\d\.1\.spatial_global_rep\.\d+\.((ffn\.[013]|ca\.fc\.[0134])\.{_NORM}|{_NORM}'
               rf'|branch_(hw|wh)\.(first\.(norm\.{_NORM}|pe\.position_embedding|parc\.weight)'
               r'|second\.(weight|position_embedding)))'),
        # The digit of a published name counts the steps, its letter tells the axis.
        renames=((r'\.block\.', '.'), (r'(\.dim_adaptive\.1)\.conv\.', r'\1.'), (r'\.ffn\.4\.', '.ffn.3.'),
                 (r'\.pre_Norm_1\.', '.branch_hw.first.norm.'), (r'\.pre_Norm_2\.', '.branch_wh.first.norm.'),
                 (r'\.meta_kernel_1_H$', '.branch_hw.first.parc.weight'),
                 (r'\.meta_kernel_1_W$', '.branch_wh.first.parc.weight'),
                 (r'\.meta_kernel_2_W$', '.branch_hw.second.weight'),
                 (r'\.meta_kernel_2_H$', '.branch_wh.second.weight'),
                 (r'\.meta_pe_1_H$', '.branch_hw.first.pe.position_embedding'),
                 (r'\.meta_pe_1_W$', '.branch_wh.first.pe.position_embedding'),
                 (r'\.meta_pe_2_W$', '.branch_hw.second.position_embedding'),
                 (r'\.meta_pe_2_H$', '.branch_wh.second.position_embedding')),
        # ``residual`` is a block that the published network holds and never calls.
        dropped=r'(residual|conv_1x1_exp|fc|head|classifier)\..*',
        shapes=((r'\.branch_(hw\.first|wh\.second)\.(parc\.weight|(pe\.)?position_embedding|weight)$',
                 (None, None, None, 1)),
                (r'\.branch_(wh\.first|hw\.second)\.(parc\.weight|(pe\.)?position_embedding|weight)$',
                 (None, None, 1, None))),
    ),
    Family(
        'SLaK',
        signature=r'^stages\.\d+\.\d+\.large_kernel\.',
        known=(r'downsample_layers\.[0-3]\.[01]\.(weight|bias)|norm[0-3]\.(weight|bias)'
               r'|stages\.[0-3]\.\d+\.(gamma|(norm|pwconv[12])\.(weight|bias))'
               rf'|stages\.[0-3]\.\d+\.large_kernel\.(vertical|horizontal|small_conv)\.(conv\.weight|bn\.{_NORM})'
               r'|stages\.[0-3]\.\d+\.large_kernel\.(vertical|horizontal)\.(weight|bias)'),
        # Older checkpoints say LoRA, newer ones Decom.
        renames=((r'\.(LoRA|Decom)1\.', '.vertical.'), (r'\.(LoRA|Decom)2\.', '.horizontal.')),
        dropped=r'(norm|head)\..*',  # the norm between pooling and the classifier
    ),
    Family(
        'KW-ResNet',
        signature=r'^layer\d+\.\d+\.conv\d\.attention\.',
        known=(rf'warehouse_manager\.weights\.\d+|(conv1|bn1)\.{_NORM}'
               rf'|layer[1-4]\.\d+\.(conv[123]|bn[123]|downsample\.[01])\.{_NORM}'
               rf'|layer[1-4]\.\d+\.(conv[123]|downsample\.0)\.attention\.{_KW_ATTENTION}'),
        shapes=_KW_SHAPES,
    ),
    Family(
        'KW-MobileNetV2',
        signature=r'^features\.\d+\.(conv\.)?\d+(\.\d+)?\.attention\.',
        known=(rf'warehouse_manager\.weights\.\d+|features\.\d+\.(conv\.)?\d+(\.\d+)?\.{_NORM}'
               rf'|features\.\d+\.(conv\.)?\d+(\.\d+)?\.attention\.{_KW_ATTENTION}'),
        shapes=_KW_SHAPES,
    ),
    Family(
        'KW-ConvNeXt',
        signature=r'^(stages|downsample_layers)\.\d+\.\d+\..*attention\.',
        known=(r'warehouse_manager\.weights\.\d+|downsample_layers\.[0-3]\.[01]\.(weight|bias)'
               r'|norm[0-3]\.(weight|bias)|stages\.[0-3]\.\d+\.(gamma|norm\.(weight|bias)|(dw|pw)conv[12]?\.bias)'
               rf'|(downsample_layers\.[0-3]\.[01]|stages\.[0-3]\.\d+\.(dwconv|pwconv[12]))\.attention\.'
               rf'{_KW_ATTENTION}'),
        dropped=r'(norm|head)\..*',
        shapes=_KW_SHAPES,
    ),
    Family(
        'TransCNN',
        signature=r'^blocks\.\d+\.\d+\.attn\.(grid_norm|ds_norm|qkv)\.',
        known=(rf'patch_embed\.[013]\.{_NORM}|ds[234]\.(conv|residual|norm[12])\.{_NORM}'
               rf'|blocks\.[0-3]\.\d+\.(attn\.(norm|grid_norm|ds_norm|qkv|q|kv|proj)|conv\.conv[123]\.[01])\.{_NORM}'),
    ),
    Family(
        'HorUPerHead',
        signature=r'^fpn_bottleneck\.(conv\.)?proj_in\.',
        known=(rf'(psp_modules\.\d+\.1|bottleneck|lateral_convs\.\d+|fpn_convs\.\d+|fpn_bottleneck)'
               rf'\.(conv\.(weight|bias)|[bgi]n\.{_NORM})|fpn_bottleneck\.conv\.{_GNCONV}|conv_seg\.(weight|bias)'),
        renames=((r'^(fpn_bottleneck\.)(proj_in|dwconv|pws|proj_out)\.', r'\1conv.\2.'), ),
        dropped=r'(?!)',
        shapes=((r'\.complex_weight$', (None, None, None, 2)), (r'\.dwconv\.weight$', (None, 1, 7, 7))),
    ),
)

_WRAPPERS = ('state_dict', 'model', 'module', 'model_state_dict', 'state_dict_ema', 'model_ema')
_CLASSIFIER = re.compile(r'(fc|head|classifier)\.')
# Parts of a whole detector or segmentor that may hold one of the families; all else passes as it is.
_PARTS = ('backbone.', 'neck.', 'decode_head.')


def _recognise(keys) -> Family | None:
    """The family to which the keys of one part (a backbone, a neck, a head) belong, or None."""
    keys = list(keys)
    return next((family for family in FAMILIES if any(re.search(family.signature, key) for key in keys)), None)


def _some(keys) -> str:
    keys = sorted(keys)
    return ', '.join(repr(key) for key in keys[:4]) + (', ...' if len(keys) > 4 else '')


def state_dict_of(checkpoint: Mapping) -> dict[str, Tensor]:
    """The state dict inside a checkpoint, without the prefixes of wrappers.

    Args:
        checkpoint: A state dict, or a mapping that holds one under ``state_dict``, ``model`` and the like.

    Returns:
        A new dict that shares the tensors.

    Raises:
        ValueError: If there is no state dict in it, or an empty one.
    """
    if not isinstance(checkpoint, Mapping):
        raise ValueError(f'a checkpoint is a mapping from names to tensors, got {type(checkpoint).__name__}')
    for name in _WRAPPERS:
        if isinstance(checkpoint.get(name), Mapping):
            return state_dict_of(checkpoint[name])
    if not checkpoint:
        raise ValueError('the state dict is empty')
    strange = [key for key, value in checkpoint.items() if not (isinstance(key, str) and torch.is_tensor(value))]
    if strange:
        raise ValueError(
            f'a state dict maps names to tensors, but {len(strange)} of {len(checkpoint)} entries do not, e.g. '
            f'{", ".join(repr(key) for key in strange[:4])}; pass the state dict itself, or wrapped under one of '
            f'{", ".join(map(repr, _WRAPPERS))}')
    state = dict(checkpoint)
    for prefix in ('module.', '_orig_mod.', 'module.', 'model.'):
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _renamed(key: str, family: Family) -> str:
    for pattern, replacement in family.renames:
        key = re.sub(pattern, replacement, key)
    return key


def _rename(state: dict[str, Tensor], family: Family, prefix: str) -> dict[str, Tensor]:
    converted, unknown = {}, []
    dropped = {key for key in state if re.fullmatch(family.dropped, key)}
    if any('.attention.' in key for key in dropped):
        # A dynamic classifier draws from cells of its own, in the warehouse that was named last.
        dropped.add(max((key for key in state if _CELLS.match(key)), key=lambda key: int(key.rpartition('.')[2])))
    for key, value in state.items():
        if key in dropped:
            continue
        ours = _renamed(key, family)
        if not re.fullmatch(family.known, ours):
            unknown.append(prefix + key)
            continue
        if ours in converted:
            raise ValueError(f'two keys of this {family.name} checkpoint would both become {ours!r}, one is '
                             f'{prefix + key!r}')
        for pattern, sizes in family.shapes:
            if re.search(pattern, ours) and not (value.dim() == len(sizes) and all(
                    want in (None, got) for want, got in zip(sizes, value.shape, strict=True))):
                want = ', '.join('*' if size is None else str(size) for size in sizes)
                raise ValueError(f'{prefix + key!r} of this {family.name} checkpoint has shape {tuple(value.shape)}, '
                                 f'expected ({want})')
        converted[ours] = value
    if unknown:
        raise ValueError(
            f'{len(unknown)} of {len(state)} keys are unknown in a {family.name} checkpoint: {_some(unknown)}. '
            f'Families known: {", ".join(f.name for f in FAMILIES)}')
    return converted


def _without_backbone(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A classification checkpoint, nothing but a backbone and perhaps a classifier, without its prefix."""
    others = [key for key in state if not key.startswith('backbone.')]
    if len(others) == len(state) or not all(map(_CLASSIFIER.match, others)):
        return state
    return {key.removeprefix('backbone.'): value for key, value in state.items()}


def _split(state: dict[str, Tensor]) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """The parts that may hold a family, by their prefix and without it, and all else."""
    parts = {}
    for prefix in _PARTS:
        part = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if part:
            parts[prefix] = part
    if not parts:
        return {'': state}, {}
    return parts, {key: value for key, value in state.items() if not key.startswith(_PARTS)}


def _convert(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Our state dict, and the family found under each prefix."""
    parts, converted = _split(state)
    found = {}
    for prefix, part in parts.items():
        family = _recognise(part)
        if family:
            found[prefix] = family.name
            part = _rename(part, family, prefix)
        converted.update({prefix + key: value for key, value in part.items()})
    if not found:
        raise ValueError(
            f'none of the {len(state)} keys tells a family: {_some(state)}. '
            f'Families known: {", ".join(f.name for f in FAMILIES)}')
    return converted, found


def convert_official(state_dict: Mapping) -> dict[str, Tensor]:
    """Turn the state dict of a published checkpoint into ours.

    It takes the state dict bare or wrapped (under ``state_dict``, ``model`` and the like), with the prefixes
    ``module.`` or ``backbone.``, or that of a whole detector or segmentor, of which backbone, neck and head are
    converted under their prefix and all else passes as it is. The family is told from the keys. Classifiers are
    dropped. What is ours already comes back unchanged.

    Args:
        state_dict: Mapping from names to tensors, or a checkpoint that holds one. It is not changed; the tensors are
            shared with the result.

    Returns:
        A new state dict, to be loaded with ``strict=True``.

    Raises:
        ValueError: If no family is recognised, keys are unknown to it, a tensor's shape contradicts its name, or the
            argument is no state dict.

    Example:
        >>> import torch
        >>> convert_official({'model': {'module.layer3.3.parc_H.pe': torch.zeros(1, 8, 14, 1)}}).keys()
        dict_keys(['layer3.3.conv2.parc_h.position_embedding'])
    """
    return convert_with_report(state_dict)[0]


def convert_with_report(state_dict: Mapping) -> tuple[dict[str, Tensor], str]:
    """:func:`convert_official`, and a line that says what was recognised and how many tensors went where."""
    state = _without_backbone(state_dict_of(state_dict))
    converted, found = _convert(state)
    families = ', '.join(f'{name} (under {prefix!r})' if prefix else name for prefix, name in found.items())
    renamed = len(converted.keys() - state.keys())
    return converted, (f'{families}: {len(converted)} tensors, {renamed} of them renamed, '
                       f'{len(state) - len(converted)} dropped')


# --------------------------------------------------------------------------------------------------------------------
# Files


def _history_statistic(owner, name):
    """What mmengine's checkpoints need of ``getattr``: the statistics of a HistoryBuffer, and nothing else."""
    from mmengine.logging import HistoryBuffer
    if owner is not HistoryBuffer or name not in ('min', 'max', 'current', 'mean'):
        raise pickle.UnpicklingError(f'Unsupported global: GLOBAL getattr({owner!r}, {name!r})')
    return getattr(owner, name)


def _harmless_globals() -> list:
    """Types that checkpoints of OpenMMLab and of the published code bases hold beside tensors.

    They hold data only: building one runs no code that the file chooses.
    """
    import numpy as np
    multiarray = np._core.multiarray if hasattr(np, '_core') else np.core.multiarray
    harmless = [argparse.Namespace, pathlib.PosixPath, pathlib.PurePosixPath, slice, np.ndarray, np.dtype]
    harmless += [type(np.dtype(code)) for code in '?bBhHiIlLqQefdFDUS']
    for name in ('_reconstruct', 'scalar'):  # files of NumPy 1 and of NumPy 2
        harmless += [(getattr(multiarray, name), f'numpy.{core}.multiarray.{name}') for core in ('core', '_core')]
    with contextlib.suppress(ImportError):
        from mmengine.logging import HistoryBuffer
        harmless += [HistoryBuffer, (_history_statistic, 'builtins.getattr')]
    return harmless


def _explain_unreadable(path: str, error: Exception) -> ValueError:
    with open(path, 'rb') as file:
        start = file.read(64)
    size = os.path.getsize(path)
    refused = re.search(r'GLOBAL (.+?) was not an allowed|GLOBAL (getattr\(.*\))|unsupported GLOBAL (\S+) whose',
                        str(error))
    if refused:
        name = next(filter(None, refused.groups()))
        return ValueError(
            f'refused to load {path}: it asks to run {name!r}, which is not needed to hold weights, and running what '
            'a file asks for lets it do anything on this machine. If you trust its source, load it once with '
            'torch.load(..., weights_only=False) and save its state dict alone')
    if start.startswith(b'version https://git-lfs'):
        return ValueError(f'{path} is a pointer of Git LFS, not the checkpoint itself: fetch it with `git lfs pull`')
    if start.lstrip().lower().startswith((b'<!doctype', b'<html')):
        return ValueError(f'{path} is a web page, not a checkpoint: the download went wrong, fetch the file again')
    if 'TorchScript' in str(error):
        return ValueError(f'{path} is a TorchScript program, not a checkpoint: take the state dict it was made from')
    if (start.startswith((b'PK', b'\x80')) and not zipfile.is_zipfile(path)) or path.endswith('.safetensors'):
        return ValueError(f'{path} ({size} bytes) is damaged or truncated: fetch or copy it again, or use an earlier '
                          f'checkpoint ({str(error).splitlines()[0] if str(error) else type(error).__name__})')
    return ValueError(f'{path} is not a checkpoint: neither a file of torch.save nor safetensors '
                      f'({size} bytes, starting with {start[:12]!r})')


def read_checkpoint(path: str | os.PathLike, map_location='cpu') -> dict:
    """Read a checkpoint (.pth and the like, or .safetensors) without running code from it.

    Besides tensors, a file may hold what mmengine's Runner and the published code bases save: NumPy arrays and
    scalars, histories of the log, and parsed arguments.

    Args:
        path: The file.
        map_location: Device of the tensors, as in :func:`torch.load`.

    Returns:
        The mapping that the file holds: a state dict, or a checkpoint with one inside.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated, damaged, wants to run code, or is not a checkpoint. The message says
            which.
    """
    path = os.path.expanduser(os.fspath(path))
    if os.path.isdir(path):
        raise ValueError(f'{path} is a folder: name the checkpoint file in it')
    if not os.path.isfile(path):
        raise FileNotFoundError(f'there is no checkpoint {path} (looked in {os.path.dirname(os.path.abspath(path))})')
    if not os.path.getsize(path):
        raise ValueError(f'{path} is empty: fetch or copy it again')
    try:
        if path.endswith('.safetensors'):
            from safetensors.torch import load_file
            device = map_location if isinstance(map_location, (str, torch.device)) else 'cpu'
            return load_file(path, device=str(device))
        with torch.serialization.safe_globals(_harmless_globals()):
            checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except ImportError as error:
        raise ImportError(f'{path} needs the safetensors package: pip install safetensors') from error
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # zip, pickle and safetensors readers raise many types for a bad file
        raise _explain_unreadable(path, error) from error
    if not isinstance(checkpoint, Mapping):
        raise ValueError(f'{path} is not a checkpoint: it holds one {type(checkpoint).__name__}, expected a mapping '
                         'with a state dict')
    return checkpoint


def write_checkpoint(checkpoint: Mapping, path: str | os.PathLike) -> None:
    """Write a checkpoint so that ``path`` holds either the old file or the whole new one, see
    :func:`plugconv_mm.atomic_write.atomic_write`.

    Args:
        checkpoint: A state dict; any mapping that :func:`torch.save` takes, if ``path`` does not end in
            ``.safetensors``.
        path: The file to write; its folder must exist.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If ``path`` is a folder, or safetensors is to hold something else than tensors.
        OSError: If writing fails.
    """
    with atomic_write(path) as file:
        if os.fspath(path).endswith('.safetensors'):
            file.write(_to_safetensors(checkpoint))
        else:
            torch.save(checkpoint, file)


def _to_safetensors(state: Mapping) -> bytes:
    from safetensors.torch import save
    others = [key for key, value in state.items() if not torch.is_tensor(value)]
    if others:
        raise ValueError(f'safetensors holds tensors only, and these are none: {_some(map(str, others))}')
    # Tensors that share memory or are views are written out one by one.
    return save({key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
                 for key, value in state.items()})


# --------------------------------------------------------------------------------------------------------------------
# mmengine


def load_from_local(filename: str, map_location=None) -> dict:
    """Loader of local files for mmengine: :func:`read_checkpoint`, with published checkpoints turned into ours.

    A published backbone or detector can therefore stand in ``init_cfg=dict(type='Pretrained', checkpoint=...)`` or
    ``load_from`` as it is: bare, or under ``model`` and the like, where mmengine would find no weights. Of what lies
    beside the weights, only the classes are kept. Other checkpoints pass unchanged.
    """
    checkpoint = read_checkpoint(filename, map_location)
    try:
        state = state_dict_of(checkpoint)
    except ValueError:  # not weights alone
        return checkpoint
    parts = [(family, part) for part in _split(state)[0].values() if (family := _recognise(part))]
    renamed = any(_renamed(key, family) != key for family, part in parts for key in part)
    if not parts or (not renamed and checkpoint.get('state_dict', checkpoint).keys() == state.keys()):
        return checkpoint
    meta = checkpoint.get('meta')
    kept = ('CLASSES', 'PALETTE', 'dataset_meta') if isinstance(meta, Mapping) else ()
    return {'state_dict': _convert(state)[0], 'meta': {key: meta[key] for key in kept if key in meta}}
