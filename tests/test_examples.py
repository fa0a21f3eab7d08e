"""The examples in the docstrings, and the Python of the README."""
import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
import torch

import plugconv_mm.analysis
import plugconv_mm.models
import plugconv_mm.ops

ROOT = Path(__file__).parents[1]


def modules():
    for package in (plugconv_mm.ops, plugconv_mm.models, plugconv_mm.analysis):
        for info in pkgutil.walk_packages(package.__path__, f'{package.__name__}.'):
            if not info.ispkg:
                yield info.name


@pytest.mark.parametrize('name', modules())
def test_docstrings(name):
    torch.manual_seed(0)
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def blocks():
    return re.findall(r'```python\n(.*?)```', (ROOT / 'README.md').read_text(), flags=re.S)


def test_readme_has_python():
    assert len(blocks()) >= 3


@pytest.mark.parametrize('number', range(len(blocks())))
def test_readme_python(number, tmp_path):
    """Snippets run as they stand; a config is built into a detector that trains on a picture."""
    code = blocks()[number]
    if 'import' in code.split('custom_imports')[0]:
        exec(compile(code, f'README.md, Python block {number + 1}', 'exec'), {})
        return
    from mmdet.testing import demo_mm_inputs
    from mmengine.config import Config
    from mmengine.registry import VISBACKENDS

    from plugconv_mm.registry import HOOKS, MODELS
    if 'custom_hooks' in code:
        for name, value in re.findall(r'^(custom_hooks|visualizer) = (.*)$', code, re.M):
            value = eval(value)
            assert all(map(HOOKS.build, value)) if name == 'custom_hooks' else all(
                VISBACKENDS.get(backend['type']) for backend in value['vis_backends'])
        return
    stock = ("_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'\n"
             "custom_imports = dict(imports=['plugconv_mm'])\n")
    file = tmp_path / 'config.py'
    file.write_text(code if '_base_' in code else stock + code)
    model = Config.fromfile(file).model
    model.backbone.init_cfg = None  # the weights are downloaded
    model._scope_ = 'mmdet'
    detector = MODELS.build(model)
    assert type(detector.neck).__name__ == 'HorFPN'
    data = detector.data_preprocessor(demo_mm_inputs(1, [[3, 64, 96]], num_classes=80), True)
    losses = detector.loss(data['inputs'], data['data_samples'])
    loss, _ = detector.parse_losses(losses)
    loss.backward()
    assert torch.isfinite(loss)
    assert detector.neck.fpn_convs[0].conv.dwconv.weight.grad.abs().sum() > 0
