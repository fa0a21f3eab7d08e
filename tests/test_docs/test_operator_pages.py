"""What the pages of the operators say in figures, messages and configs."""
import functools
import re
from pathlib import Path

import pytest
import torch
from torch import nn

for name in ('mmdet', 'mmseg', 'mmpretrain'):
    pytest.importorskip(name)

from mmengine.config import Config  # noqa: E402

from plugconv_mm import ops  # noqa: E402
from plugconv_mm.analysis import measure  # noqa: E402
from plugconv_mm.models.necks import HorFPN  # noqa: E402
from plugconv_mm.ops.parc.cost import Workload, cheapest_backend  # noqa: E402
from plugconv_mm.registry import MODELS  # noqa: E402

PAGES = sorted((Path(__file__).parents[2] / 'docs/operators').glob('[!i]*.md'))
NAMES = {name: getattr(ops, name) for name in ops.__all__} | dict(HorFPN=HorFPN, torch=torch, nn=nn)


def rows(page, *head):
    """The cells of the tables with this head."""
    line = re.escape(f'| {" | ".join(head)} |\n')
    for table in re.findall(rf'^{line}\|[-| ]+\|\n((?:\|.*\n)+)', page.read_text(), re.M):
        for line in table.splitlines():
            yield [cell.strip().replace('`', '') for cell in line.strip('|').split(' | ')]


def every(*head):
    found = [(page.stem, *row) for page in PAGES for row in rows(page, *head)]
    assert found
    return found


@functools.cache
def cost(code, shape):
    channels, height, width = map(int, shape.split('×'))
    found = measure(eval(code, NAMES), (height, width), channels)
    return f'{found.total_params:,}', f'{found.total_macs() / 1e6:,.1f}M'


@pytest.mark.parametrize('page, layer, shape, params, macs', every('Layer', 'Map', 'Parameters', 'Multiply-adds'))
def test_costs(page, layer, shape, params, macs):
    assert (params, macs) == cost(layer, shape)


LENGTHS = [7, 14, 28, 56, 84, 112, 168, 224, 336]


@pytest.mark.parametrize('page, device, kernel, axis, layout, mode, picks', every(
    'Device', 'Kernel', 'Along', 'Layout', 'Mode', f'Picked for N = {", ".join(map(str, LENGTHS))}'))
def test_picked_backends(page, device, kernel, axis, layout, mode, picks):
    said = {}
    for pick in picks.split(', '):
        backend, first, last = re.fullmatch(r'(\w+) (\d+)(?:–(\d+))?', pick).groups()
        said |= {n: backend for n in LENGTHS if int(first) <= n <= int(last or first)}
    depthwise = kernel == 'depthwise'
    channels = 96 if depthwise else 64
    assert said == {n: cheapest_backend(Workload(
        batch=1, channels=channels, groups=channels if depthwise else 1, length=n, other=n, along_h=axis == 'H',
        channels_last=layout == 'channels-last', device=device, dtype=torch.float32, training=mode == 'training'))
        for n in LENGTHS}


@pytest.mark.parametrize('page, code, said', every('Call', 'Error'))
def test_errors(page, code, said):
    with pytest.raises(Exception) as caught:
        eval(code, NAMES)
    assert f'{caught.type.__name__}: {caught.value}' == said


def configs():
    return [(page.stem, block) for page in PAGES
            for block in re.findall(r'```python\n(.*?)```', page.read_text(), re.S) if '_base_' in block]


def test_every_page_has_a_config():
    assert {page for page, _ in configs()} == {page.stem for page in PAGES}


@pytest.mark.parametrize('page, block', configs())
def test_configs(page, block, tmp_path):
    file = tmp_path / 'config.py'
    file.write_text(block)
    cfg = Config.fromfile(file)
    backbone, neck = (MODELS.build(dict(cfg.model[part], _scope_=cfg.default_scope)) for part in ('backbone', 'neck'))
    assert any(type(part).__module__.startswith('plugconv_mm.') for part in (backbone, neck))
    with torch.no_grad():
        assert len(neck(backbone(torch.rand(1, 3, 64, 96)))) == 5
