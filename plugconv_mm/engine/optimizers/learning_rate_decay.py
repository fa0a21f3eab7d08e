"""Learning rates that decay from the head of a network to its stem.

Each parameter of the backbone has an id from 0 (the stem) to ``num_layers`` (the last stage). Parameters that are not
pre-trained, those of heads, necks and the norms of the backbone's outputs, have ``num_layers + 1``. The learning rate
is base · decay_rate^(num_layers + 1 - id), as in the fine-tuning of ConvNeXt (https://arxiv.org/abs/2201.03545).
"""
import re
from bisect import bisect

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from plugconv_mm.errors import ConfigError
from plugconv_mm.ops import KWConv2d, KWLinear
from plugconv_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS

_KEYS = ('decay_rate', 'decay_type', 'num_layers')
_TYPES = ('layer_wise', 'stage_wise')
# Patterns of the names of a backbone's parameters: each has the stage, counted from the number given here, and perhaps
# a block of it. Without a block it is the downsampling before the stage.
_STAGES = (
    (re.compile(r'(?:stages|blocks)\.(?P<stage>\d+)\.(?:blocks\.)?(?P<block>\d+)\.'), 0),  # ConvNeXt, TransCNN, Swin
    (re.compile(r'layer(?P<stage>\d+)\.(?P<block>\d+)\.'), 1),  # ResNet
    (re.compile(r'layer_(?P<stage>[2-9])\.(?P<block>\d+)\.'), 2),  # ParC-Net
    (re.compile(r'downsample_layers\.(?P<stage>[1-9]\d*)\.'), 0),
    (re.compile(r'ds(?P<stage>\d+)\.'), 1),  # TransCNN
    (re.compile(r'stages\.(?P<stage>\d+)\.downsample\.'), -1),  # Swin merges patches at the end of a stage
)
_STEM = re.compile(r'(?:downsample_layers\.0|conv1|bn1|stem|patch_embed|conv_1|layer_1)\.')
_FEATURE = re.compile(r'features\.(\d+)\.')
_FEATURE_STARTS = (1, 4, 7, 14)  # the first of MobileNetV2's ``features`` in each stage
_OUTPUT_NORM = re.compile(r'norm\d*\.')
_CELLS = re.compile(r'warehouse_manager\.weights\.(\d+)$')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LearningRateDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Constructor of an optimizer whose learning rate decays from the head to the stem, by layers or by stages.

    It supports every backbone of PlugConv-MM, and the ResNets, ConvNeXts and Swin transformers of mmdet, mmseg and
    mmpretrain. With S the number of stages, 4 in all published networks, and stages counted from 1, the ids are:

    - ``'layer_wise'``: the stem has 0; stage s, with the downsampling before it, has s; the blocks of stage S - 1 are
      spread over the ids from S - 1 to num_layers - 1; stage S has num_layers. With num_layers=12, two of HorNet's 18
      blocks, or three of ConvNeXt's 27, share an id; with num_layers=6, three of ConvNeXt's 9.
    - ``'stage_wise'``: the stem and all downsampling have 0, the blocks of stage s have s. In networks whose
      downsampling is part of a block, such as ResNets, it has the id of its stage.

    Kernel cells that several layers share have the id of the last of them. Parameters that need no gradients are left
    out. Weight decay is that of the optimizer, and none for biases, layer scales and 1-D parameters such as those of
    norms.

    Args:
        optim_wrapper_cfg: Config of the wrapper, with its ``optimizer``, which has an ``lr``.
        paramwise_cfg: ``decay_rate``, above 0 and at most 1; ``decay_type``, ``'layer_wise'`` or ``'stage_wise'``;
            ``num_layers``, the number of groups below the heads, at least S.

    Raises:
        ConfigError: A key is missing or unknown, or a value is out of range; or the model has no backbone, or one
            whose stages cannot be told from its parameters' names.

    Example:
        In a config::

            optim_wrapper = dict(
                type='OptimWrapper',
                constructor='plugconv_mm.LearningRateDecayOptimWrapperConstructor',
                paramwise_cfg=dict(decay_rate=0.7, decay_type='layer_wise', num_layers=12),
                optimizer=dict(type='AdamW', lr=2e-4, betas=(0.9, 0.999), weight_decay=0.05))
    """

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        given = self.paramwise_cfg
        expected = 'paramwise_cfg=dict(decay_rate=0.7, decay_type="layer_wise", num_layers=12), for example'
        missing, unknown = [key for key in _KEYS if key not in given], sorted(set(given) - set(_KEYS))
        if missing:
            raise ConfigError(f'paramwise_cfg lacks {", ".join(missing)}: give {expected}; got {dict(given)}')
        if unknown:
            raise ConfigError(f'paramwise_cfg takes {", ".join(_KEYS)} and not {", ".join(unknown)}. If they '
                              'come from a base config, add _delete_=True')
        if given['decay_type'] not in _TYPES:
            raise ConfigError(f'decay_type must be {" or ".join(map(repr, _TYPES))}, got {given["decay_type"]!r}')
        if not isinstance(given['decay_rate'], (int, float)) or not 0 < given['decay_rate'] <= 1:
            raise ConfigError(f'decay_rate must be a number above 0 and at most 1, got {given["decay_rate"]!r}')
        if not isinstance(given['num_layers'], int):
            raise ConfigError(f'num_layers must be an integer, got {given["num_layers"]!r}')
        if self.base_lr is None:
            raise ConfigError(
                'the learning rate decays from the one of the optimizer: give optimizer=dict(lr=...)')

    def add_params(self, params: list[dict], module: nn.Module, **kwargs: object) -> None:
        """Append one group for each id, and for parameters with and without weight decay, to ``params``."""
        rate, num_layers = self.paramwise_cfg['decay_rate'], self.paramwise_cfg['num_layers']
        ids = layer_ids(module, self.paramwise_cfg['decay_type'], num_layers)
        groups = {}
        for name, param in module.named_parameters():
            if not param.requires_grad:
                continue
            key = ids[name], not _without_decay(name, param)
            if key not in groups:
                groups[key] = dict(params=[], lr=self.base_lr * rate**(num_layers + 1 - key[0]),
                                   group_name=f'layer_{key[0]}_{"decay" if key[1] else "no_decay"}')
                if self.base_wd is not None:
                    groups[key]['weight_decay'] = self.base_wd if key[1] else 0.
            groups[key]['params'].append(param)
        params.extend(groups[key] for key in sorted(groups))
        print_log('Learning rates by depth:\n' + '\n'.join(
            f'  {group["group_name"]:<18} lr {group["lr"]:.3g}, weight decay {group.get("weight_decay")}, '
            f'{len(group["params"])} parameters' for group in params), logger='current')


def layer_ids(model: nn.Module, decay_type: str, num_layers: int) -> dict[str, int]:
    """Find the id of every parameter of a model, by name; see :class:`LearningRateDecayOptimWrapperConstructor`.

    Raises:
        ConfigError: There is no backbone, its stages are not known, or it has more of them than ``num_layers``.
    """
    backbone = getattr(model, 'backbone', None)
    if not isinstance(backbone, nn.Module):
        raise ConfigError(
            f'learning rates decay along the backbone, and {type(model).__name__} has none: the model '
            'should be a detector, a segmentor or a classifier')
    kind = type(backbone).__name__
    places = {name: _place(name, kind) for name, _ in backbone.named_parameters()
              if not _OUTPUT_NORM.match(name) and not _CELLS.match(name)}
    num_stages = 1 + max((stage for stage, _ in places.values()), default=-1)
    if num_stages < 2:
        raise ConfigError(f'{kind} has no stages for learning rates to decay along')
    if num_layers < num_stages:
        raise ConfigError(f'num_layers must be at least {num_stages}, the stages of {kind}, got {num_layers}')
    spread = num_stages - 2  # the stage whose blocks have several ids
    depth = 1 + max(block or 0 for stage, block in places.values() if stage == spread)

    def to_id(stage: int, block: int | None) -> int:
        if decay_type == 'stage_wise':
            return 0 if block is None else stage + 1
        if stage == num_stages - 1:
            return num_layers
        if stage == spread:
            return stage + 1 + (block or 0) * (num_layers - stage - 1) // depth
        return stage + 1

    ids = {f'backbone.{name}': to_id(*place) for name, place in places.items()}
    for name, layer in backbone.named_modules():
        if isinstance(layer, (KWConv2d, KWLinear)) and layer.own_warehouse is None:
            cells = f'backbone.warehouse_manager.weights.{layer.warehouse_index}'
            ids[cells] = max(ids.get(cells, 0), ids[f'backbone.{name}.attention.fc1.weight'])
    return {name: ids.get(name, num_layers + 1) for name, _ in model.named_parameters()}


def _place(name: str, kind: str) -> tuple[int, int | None]:
    """Find the stage of a backbone's parameter, -1 for the stem, and its block, None for downsampling."""
    if _STEM.match(name):
        return -1, None
    if match := _FEATURE.match(name):
        layer = int(match[1])
        stage = bisect(_FEATURE_STARTS, layer) - 1
        return (stage, layer - _FEATURE_STARTS[stage]) if stage >= 0 else (-1, None)
    for pattern, first in _STAGES:
        if match := pattern.match(name):
            block = match.groupdict().get('block')
            return int(match['stage']) - first, None if block is None else int(block)
    raise ConfigError(
        f'cannot tell to which stage the parameter backbone.{name} of {kind} belongs. Learning rates '
        'decay along the backbones of plugconv_mm and along ResNets, ConvNeXts and Swin transformers')


def _without_decay(name: str, param: nn.Parameter) -> bool:
    """Whether a parameter is a bias, a layer scale, or of a norm."""
    own = name.rpartition('.')[2]
    # Biases may be tables (Swin's of relative positions), and a layer scale (1, C, 1, 1).
    return param.ndim <= 1 or 'bias' in own or own.startswith('gamma')
