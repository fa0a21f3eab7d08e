"""A model of any package with operators plugged into its layers, from a config."""
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.logging import print_log
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.runner import load_checkpoint
from torch import nn

from plugconv_mm import plugging
from plugconv_mm.errors import PlugError
from plugconv_mm.plugging.embedding import embed
from plugconv_mm.plugging.plugged import replace
from plugconv_mm.registry import MODELS


@MODELS.register_module()
def plug(model: Mapping[str, Any], rules: Sequence[Mapping[str, Any]], input_size: tuple[int, int] | None = None,
         checkpoint: str | None = None, data_preprocessor: Mapping[str, Any] | None = None, **others: Any) -> nn.Module:
    """Build a model and plug operators into it, with ``plugconv_mm.plug``.

    The result is the model itself, of its own class, for every Runner and tool. Its pretrained parts, and then the
    checkpoint, are loaded where a training begins, as other models do; the operators begin as they are made.

    Args:
        model: Config of the model.
        rules: As in ``plugconv_mm.plug``.
        input_size: H and W of the images, for arguments that are ``'auto'``.
        checkpoint: File or address of weights of the model as it is without operators, which training starts from.
        data_preprocessor: Config of the model's preprocessor, where the model's own config has none; what Runners hand
            on.
        **others: Nothing but None, which tools set parts of a model to, as ``init_model`` of mmseg ``train_cfg``.

    Raises:
        PlugError: As in ``plugconv_mm.plug``, and for settings that belong to the config of the model.

    Example:
        In a config::

            _base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
            custom_imports = dict(imports=['plugconv_mm'])
            model = dict(_delete_=True, type='plugconv_mm.plug', model={{_base_.model}}, rules=[
                dict(target=r're:backbone\\.layer4\\..*\\.conv2', where=dict(kernel_size=3, stride=1),
                     to=dict(type='plugconv_mm.ParCHW2d'), start='residual')])
    """
    if given := [key for key, value in others.items() if value is not None]:
        raise PlugError(f'plugconv_mm.plug does not take {", ".join(given)}: settings of the model itself belong into '
                        f'its config, as model.model.{given[0]} of --cfg-options')
    inner = dict(model)
    if data_preprocessor is not None:
        inner.setdefault('data_preprocessor', data_preprocessor)
    built = ROOT_MODELS.build(inner)
    modules = dict(built.named_modules(remove_duplicate=False))
    report = plugging.plug(built, rules, input_size)
    print_log(f'Operators plugged into {type(built).__name__}:\n{report}', logger='current')
    layers = {name: modules[name] for name in report.plugged}
    embedded = [layer.name for layer in report.layers if layer.name in layers and layer.start.startswith('embed')]
    built.init_weights = functools.partial(_init_weights, built, layers, embedded, checkpoint)
    return built


def _init_weights(model: nn.Module, layers: Mapping[str, nn.Module], embedded: Sequence[str],
                  checkpoint: str | None) -> None:
    """Initialise and load the model as it is without operators, and leave these as they were made.

    Its own initialisation would draw every convolution in them, too, and what loads pretrained parts may ask the model
    for the names of its layers. Kernels are embedded as they are now.
    """
    operators = {name: model.get_submodule(name) for name in layers}
    replace(model, layers)
    try:
        type(model).init_weights(model)  # type: ignore[attr-defined]
        if checkpoint is not None:
            load_checkpoint(model, checkpoint, map_location='cpu')
    finally:
        replace(model, operators)
    for name in embedded:
        embed(operators[name], layers[name])
