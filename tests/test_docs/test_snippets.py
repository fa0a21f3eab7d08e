"""The Python of the README, of the documentation and of the configs' pages.

A block that imports something is run as it stands, and after it the blocks of its page that go on with its names. A
config, and a part of one, is read by mmengine and what it describes is built; models train on an image.
"""
import ast
import importlib.util
import inspect
import re
import shlex
import textwrap

import pytest
import torch
from docs_harness import blocks

for name in ('mmdet', 'mmseg', 'mmpretrain'):
    pytest.importorskip(name)

from mmdet.testing import demo_mm_inputs  # noqa: E402
from mmengine import registry  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.logging import MessageHub  # noqa: E402
from mmengine.optim import build_optim_wrapper  # noqa: E402
from mmengine.registry import HOOKS, MODELS, VISBACKENDS, DefaultScope  # noqa: E402
from mmengine.runner import Runner  # noqa: E402
from mmengine.structures import PixelData  # noqa: E402
from mmpretrain.structures import DataSample  # noqa: E402
from mmseg.structures import SegDataSample  # noqa: E402

from plugconv_mm.analysis import build_model  # noqa: E402
from plugconv_mm.runtime.options import make_parser  # noqa: E402
from plugconv_mm.runtime.read_config import load_config  # noqa: E402

# What a part of a config is a part of: by the keys of its model.
BASES = {
    'decode_head': 'mmseg::upernet/upernet_r50_4xb4-80k_ade20k-512x512.py',
    'auxiliary_head': 'mmseg::upernet/upernet_r50_4xb4-80k_ade20k-512x512.py',
    'head': 'mmpretrain::resnet/resnet50_8xb32_in1k.py',
    '': 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
}
# Names that a config may give values to.
KEYS = {*inspect.signature(Runner.__init__).parameters, 'custom_imports', 'load_from', 'auto_scale_lr', 'tta_model',
        'tta_pipeline', 'train_pipeline', 'test_pipeline'} - {'self'}
# Packages for curves that the tests do without: their backends are built where they are installed.
OPTIONAL = {'TensorboardVisBackend': 'tensorboard', 'WandbVisBackend': 'wandb'}


def assigned(block):
    """The names that a block gives values to, if it does nothing else; else nothing."""
    names = []
    for statement in ast.parse(block.text).body:
        if not isinstance(statement, ast.Assign) or not all(isinstance(t, ast.Name) for t in statement.targets):
            return []
        names += [target.id for target in statement.targets]
    return names


def is_config(block):
    names = set(assigned(block))
    return bool(names) and (names <= KEYS | {'_base_'} or '_base_' in names)


def python_blocks():
    return [block for page in blocks.pages() for block in blocks.read(page) if block.language in blocks.PYTHON]


def shown(found, is_slow):
    """Parameters of a test, by place."""
    return [pytest.param(item, id=place, marks=[pytest.mark.slow] if is_slow(place) else [])
            for place, item in found.items()]


def programs():
    """The blocks of a page that are run one after another."""
    found = {}
    for block in python_blocks():
        if not is_config(block):
            found.setdefault(block.page, []).append(block)
    return shown(found, lambda page: page == 'docs/deployment.md')  # which exports a model


def configs():
    return shown({block.place: block for block in python_blocks() if is_config(block)},
                 lambda place: not place.startswith('README.md:'))


def test_there_is_python():
    assert len(programs()) >= 1 and len(configs()) >= 10


@pytest.mark.parametrize('page', programs())
def test_program(page, sandbox):
    """In one process, with the names of the blocks before; an error names page and line."""
    code = textwrap.dedent("""
        names = {'__name__': '__main__'}
        for place, line, text in BLOCKS:
            exec(compile('\\n' * (line - 1) + text, place, 'exec'), names)
        """).replace('BLOCKS', repr([(block.page, block.line, block.text) for block in page]))
    sandbox.run(f'python -c {shlex.quote(code)}', page[0].place)


@pytest.mark.parametrize('block', configs())
def test_config(block, tmp_path, monkeypatch):
    monkeypatch.chdir(blocks.ROOT)
    monkeypatch.setenv('WANDB_MODE', 'offline')
    names = assigned(block)
    if '_base_' in names:
        cfg = read(block.text, tmp_path)
        model = train(cfg)
        for name in set(names) & set(cfg) - {'model'}:
            check_part(name, cfg[name], model, tmp_path / name)
        return
    # one name may be given one value after another
    for statement in ast.parse(block.text).body:
        name, text = statement.targets[0].id, ast.unparse(statement)
        value = Config.fromstring(text, '.py')[name]
        if name == 'model':
            check_model(value, text, tmp_path)
        else:
            base = read(f"_base_ = '{BASES['']}'\n{text}", tmp_path)
            with DefaultScope.overwrite_default_scope(base.default_scope):
                check_part(name, value, torch.nn.Linear(1, 1), tmp_path / name)


def read(text, folder):
    """The config of a text, read as the tools do."""
    file = folder / 'config.py'
    file.write_text(text if 'custom_imports' in text else f"{text}\ncustom_imports = dict(imports=['plugconv_mm'])\n")
    return load_config(make_parser('').parse_args([str(file)]))


def check_model(model, text, folder):
    """A part of a model changes a common one. A backbone alone, which deletes nothing of another, is built by itself.
    """
    backbone = model.get('backbone') or {}
    if set(model) == {'backbone'} and 'type' in backbone and '_delete_' not in backbone:
        part = MODELS.build(backbone)
        maps = part(torch.randn(1, 3, 64, 64))
        assert all(torch.isfinite(y).all() for y in maps) and len(maps)
        return
    base = next(base for key, base in BASES.items() if key in model or not key)
    train(read(f"_base_ = '{base}'\n{text}", folder))


def train(cfg):
    """Build the model and take a step on two images; every plug-in that the config names is in it, and learns."""
    torch.manual_seed(0)
    MessageHub.get_current_instance().update_info('epoch', 0)  # heads ask a runner's for it
    model = build_model(cfg).train()
    images, samples = torch.randn(2, 3, 64, 64), []
    if cfg.default_scope == 'mmdet':
        data = demo_mm_inputs(2, [[3, 64, 96]] * 2, num_classes=10, with_mask=True)
        data = model.data_preprocessor(data, True)
        images, samples = data['inputs'], data['data_samples']
    elif cfg.default_scope == 'mmseg':
        labels = PixelData(data=torch.arange(64).div(8).long().expand(1, 64, 64))
        samples = [SegDataSample(gt_sem_seg=labels, metainfo=dict(img_shape=(64, 64))) for _ in images]
    else:
        samples = [DataSample().set_gt_label(number) for number, _ in enumerate(images)]
    loss, _ = model.parse_losses(model.loss(images, samples))
    loss.backward()
    assert torch.isfinite(loss)
    for name in re.findall(r"'type': 'plugconv_mm\.(\w+)", str(cfg.model.to_dict())):
        found = [m for m in model.modules() if type(m).__name__ == name]
        assert found, f'no {name} in the model'
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for m in found for p in m.parameters()), name
    return model


def check_part(name, value, model, folder):
    """Hooks, optimizers and backends of curves are built; of all else the types are known and take the arguments."""
    if name == 'optim_wrapper':  # some of its arguments are the constructor's
        build_optim_wrapper(model, value)
        return
    if name == 'custom_hooks':
        assert value and all(map(HOOKS.build, value))
        return
    for node in typed(value):
        kind = lookup(node.type)
        assert kind is not None, f'no registry knows {node.type}'
        signature = inspect.signature(kind)
        if not any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
            assert set(node) - {'type', '_delete_', '_scope_'} <= set(signature.parameters), (node.type, signature)
        if node.type in OPTIONAL and importlib.util.find_spec(OPTIONAL[node.type]):
            backend = VISBACKENDS.build(dict(node, save_dir=str(folder)))
            backend.add_scalar('loss', 1., 1)
            backend.close()
            assert any(path.is_file() for path in folder.rglob('*')), node.type


def typed(node):
    """The dicts with a type in a value."""
    if isinstance(node, dict):
        if isinstance(node.get('type'), str):
            yield node
        for value in node.values():
            yield from typed(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from typed(value)


def lookup(name):
    """What any registry has under this name."""
    for root in vars(registry).values():
        if isinstance(root, registry.Registry):
            with root.switch_scope_and_registry(None) as scoped:
                if scoped.get(name) is not None:
                    return scoped.get(name)
    return None
