"""One feature map of a model: of its backbone, of its neck, or of a model of timm."""
import copy
import importlib.util
from pathlib import Path

from mmengine.config import Config
from torch import Tensor, nn

from plugconv_mm.errors import ConfigError
from plugconv_mm.runtime.build import build_part, is_whole_model
from plugconv_mm.runtime.config_parts import without_operators
from plugconv_mm.runtime.weights import load_weights


class FeatureMap(nn.Module):
    """A backbone, perhaps with a neck behind it, that returns one of its maps.

    Args:
        name: The model's name in messages.
        backbone: Returns a map or a sequence of maps.
        neck: Takes the backbone's maps; None for a model without one.
        index: Index of the map that is returned.

    Raises:
        ConfigError: In the forward pass, if there is no such map.
    """

    def __init__(self, name: str, backbone: nn.Module, neck: nn.Module | None, index: int) -> None:
        super().__init__()
        self.name, self.index = name, index
        self.backbone = backbone
        if neck is not None:
            self.neck = neck

    def forward(self, x: Tensor) -> Tensor:
        outs = self.backbone(x)
        outs = self.neck(outs) if hasattr(self, 'neck') else outs
        outs = (outs, ) if isinstance(outs, Tensor) else tuple(outs)
        if self.index >= len(outs):
            raise ConfigError(f'{self.name} has {len(outs)} maps there, stages 0 to {len(outs) - 1}; there is no stage '
                              f'{self.index}')
        if outs[self.index].dim() != 4:
            raise ConfigError(f'what {self.name} returns there is no map but of shape {tuple(outs[self.index].shape)}; '
                              'for mmpretrain: --cfg-options model.backbone.gap_before_final_norm=False, or '
                              'model.backbone.out_type=featmap')
        return outs[self.index]


def map_of_config(cfg: Config, name: str, part: str = 'backbone', stage: int | None = None,
                  checkpoint: str | Path | None = None) -> FeatureMap:
    """Build the part of a config's model that returns one feature map; its heads are not built, but where operators are
    plugged into it.

    Args:
        cfg: A config of any task whose model has a backbone, or whose model is one.
        name: The config's name in messages.
        part: 'backbone' or 'neck'.
        stage: The stage of the backbone, counted as in its ``out_indices``, or the level of the neck. The last one if
            None.
        checkpoint: A file with the weights; random ones if None.

    Raises:
        ConfigError: A model without such a part or stage, or a checkpoint of another model.
    """
    whole = copy.deepcopy(cfg.get('model') or {})
    model = without_operators(whole)
    settings = model.get('backbone', model)
    if not isinstance(settings, dict) or 'type' not in settings or is_whole_model(cfg, settings):
        raise ConfigError(f'{name} has no model.backbone whose receptive field could be measured')
    if part == 'neck' and not model.get('neck'):
        raise ConfigError(f'{name} has no model.neck')
    index = stage
    if part == 'backbone' and stage is not None:
        given = settings.get('out_indices')
        given = [given] if isinstance(given, int) else list(given or ())
        if stage in given:
            index = given.index(stage)
        else:
            settings['out_indices'], index = (stage, ), 0
    try:
        if whole is model:
            backbone, neck = build_part(cfg, settings), build_part(cfg, model.neck) if part == 'neck' else None
        else:  # rules have the names of the whole model
            whole = build_part(cfg, whole)
            backbone, neck = getattr(whole, 'backbone', whole), whole.neck if part == 'neck' else None
    except (AssertionError, IndexError, KeyError, TypeError, ValueError) as error:
        if stage is None or part == 'neck':
            raise
        raise ConfigError(f'{name} has no stage {stage}: {settings["type"]} does not take out_indices=({stage}, )'
                          + (f' ({error})' if str(error) else '')) from error
    found = FeatureMap(name, backbone, neck, -1 if index is None else index).eval().requires_grad_(False)
    if checkpoint is not None:
        load_weights(found, checkpoint, ('backbone.', ) if neck is None else ('backbone.', 'neck.'))
    return found


class _TimmMaps(nn.Module):
    """The feature maps of all stages of a model of timm."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> list[Tensor]:
        try:
            return self.model.forward_intermediates(x, intermediates_only=True)
        except AssertionError as error:
            raise ConfigError(f'{type(self.model).__name__} of timm does not take images of {x.shape[2]}x'
                              f'{x.shape[3]}: {error}; give another --size') from error


def map_of_timm(name: str, stage: int | None = None, checkpoint: str | Path | None = None) -> FeatureMap:
    """Build a model of timm that returns one of its feature maps.

    Args:
        name: The name for ``timm.create_model``, such as 'convnext_tiny'.
        stage: The stage, counted from 0; the last one if None.
        checkpoint: A file with the weights of the whole model; random ones if None.

    Raises:
        ConfigError: timm is not installed or does not know the model, or a checkpoint of another model.
    """
    if importlib.util.find_spec('timm') is None:
        raise ConfigError(f"timm::{name} needs timm: pip install 'plugconv-mm[analysis]', or pip install timm")
    import timm
    if not timm.is_model(name):
        near = timm.list_models(f'*{name[:6]}*')[:3]
        raise ConfigError(f'timm {timm.__version__} has no model {name}.' + f' Others: {", ".join(near)}' * bool(near))
    model = timm.create_model(name)
    if not hasattr(model, 'forward_intermediates'):
        raise ConfigError(f'{name} of timm {timm.__version__} does not return its feature maps')
    if checkpoint is not None:
        load_weights(model, checkpoint)
    found = FeatureMap(f'timm::{name}', _TimmMaps(model), None, -1 if stage is None else stage)
    return found.eval().requires_grad_(False)


def open_branches(model: nn.Module) -> int:
    """Set to 1 the scales of residual branches that are initialised at or near zero: layer scales and norms.

    With its initial scales such a network is little more than its stem and its downsampling, whatever its blocks are.

    Returns:
        The number of scales that were set.
    """
    count = 0
    for name, parameter in model.named_parameters():
        is_vector = parameter.numel() == max(parameter.shape, default=0)
        if is_vector and not name.endswith('bias') and parameter.min() == parameter.max() and parameter.max() <= 1e-2:
            parameter.data.fill_(1)
            count += 1
    return count
