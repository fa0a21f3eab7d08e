"""Weights in a model: all of them, or an error before anything is evaluated."""
import pytest
import torch
from torch import nn

pytest.importorskip('mmengine')

from mmengine.evaluator import BaseMetric  # noqa: E402
from mmengine.model import BaseModel, BaseTTAModel  # noqa: E402
from mmengine.runner import Runner  # noqa: E402

from plugconv_mm.checkpoint import write_checkpoint  # noqa: E402
from plugconv_mm.errors import CheckpointError, CheckpointNotFoundError  # noqa: E402
from plugconv_mm.runtime.weights import CheckFitHook, load_weights  # noqa: E402


class Network(BaseModel):

    def __init__(self):
        super().__init__()
        self.backbone = nn.ModuleDict({'conv': nn.Conv2d(1, 2, 1), 'bn': nn.BatchNorm2d(2)})
        self.neck = nn.Conv2d(2, 2, 1)
        self.head = nn.Linear(2, 1)

    def forward(self, x, mode='tensor'):
        x = self.neck(self.backbone['bn'](self.backbone['conv'](x)))
        return self.head(x.mean((2, 3)))

    def test_step(self, data):
        return self(data['x'])


class Wrapper(BaseModel):
    """A network whose own names all begin with `model.`."""

    def __init__(self):
        super().__init__()
        self.model = Network()

    def forward(self, x, mode='tensor'):
        return self.model(x)

    def test_step(self, data):
        return self(data['x'])


class Augmented(BaseTTAModel):

    def __init__(self):
        super().__init__(Network())

    def merge_preds(self, data_samples_list):
        return data_samples_list

    def test_step(self, data):
        return self.module(data['x'])


class Outputs(BaseMetric):

    def process(self, data_batch, data_samples):
        self.results += [float(sample) for sample in data_samples]

    def compute_metrics(self, results):
        return {'sum': sum(results)}


@pytest.fixture
def source():
    torch.manual_seed(0)
    model = Network()
    for value in model.state_dict().values():
        if value.is_floating_point():
            nn.init.uniform_(value, 0.5, 1.5)
    return model.eval()


X = torch.rand(4, 1, 3, 3)


def evaluate(folder, model, checkpoint):
    """The sum of a model's outputs, as its evaluator has it."""
    loader = dict(dataset=[{'x': x} for x in X], batch_size=2, num_workers=0,
                  collate_fn=dict(type='default_collate'), sampler=dict(type='DefaultSampler', shuffle=False))
    runner = Runner(model, str(folder), test_dataloader=loader, test_evaluator=[Outputs()], test_cfg=dict(),
                    load_from=str(checkpoint), default_scope='mmengine', log_level='ERROR', experiment_name=str(folder))
    runner.register_hook(CheckFitHook())
    return runner.test()['sum']


def under(prefix, state):
    return {prefix + key: value for key, value in state.items()}


WRAPPINGS = {
    'bare': lambda state: state,
    'run': lambda state: {'state_dict': state, 'meta': {'epoch': 1}, 'optimizer': {}, 'message_hub': {}},
    'model': lambda state: {'model': state, 'model_ema': {key: torch.zeros_like(v) for key, v in state.items()}},
    'model.': lambda state: {'state_dict': under('model.', state)},
    'run, model.': lambda state: {'state_dict': under('model.', state), 'meta': {}},
    'module._orig_mod.': lambda state: {'ema': under('module._orig_mod.', state)},
    'more': lambda state: {'state_dict': {**state, 'auxiliary.weight': torch.zeros(1)}, 'meta': {}},
    'profiled': lambda state: {'model': {**state, 'neck.total_ops': torch.zeros(1)}},
}


@pytest.mark.parametrize('kind, wrapping', [*((Network, name) for name in WRAPPINGS), *(
    (kind, name) for kind in (Wrapper, Augmented) for name in WRAPPINGS if name != 'more')])
def test_evaluated_weights_are_those_of_the_checkpoint(tmp_path, source, kind, wrapping):
    write_checkpoint(WRAPPINGS[wrapping](source.state_dict()), tmp_path / 'x.pth')
    assert evaluate(tmp_path, kind(), tmp_path / 'x.pth') == pytest.approx(float(source(X).sum()), rel=1e-5)


def test_averaged_weights_are_evaluated_where_they_are_asked_for(tmp_path, source):
    zeros = {key: torch.zeros_like(value) for key, value in source.state_dict().items()}
    write_checkpoint({'model': zeros, 'model_ema': source.state_dict()}, tmp_path / 'x.pth')
    expected = pytest.approx(float(source(X).sum()), rel=1e-5)
    assert evaluate(tmp_path / 'a', Network(), f'{tmp_path}/x.pth#model_ema') == expected
    assert evaluate(tmp_path / 'b', Network(), f'{tmp_path}/x.pth') != expected


@pytest.mark.parametrize('change, message', [
    (lambda state: {key: state[key] for key in state if 'neck' not in key},
     r'x\.pth is a checkpoint of another model than the config: 2 weights of the model are not in it, e\.g\. neck\.'),
    (lambda state: {**state, 'neck.weight': torch.zeros(3, 2, 1, 1)}, '1 weights have another shape, e.g. neck.weight'),
    (lambda state: under('backbone.', state), '10 weights of the model are not in it'),
    (lambda state: {'novel.weight': torch.zeros(1)}, '10 weights of the model are not in it'),
], ids=['missing', 'shape', 'prefix', 'other'])
def test_less_than_all_is_not_evaluated(tmp_path, source, change, message, monkeypatch):
    monkeypatch.setattr(Network, 'test_step', lambda *_: pytest.fail('it was evaluated'))
    for name in ('run', 'bare'):
        write_checkpoint(WRAPPINGS[name](change(source.state_dict())), tmp_path / 'x.pth')
        with pytest.raises(CheckpointError, match=message):
            evaluate(tmp_path / name, Network(), tmp_path / 'x.pth')
        with pytest.raises(CheckpointError, match=message):
            load_weights(Network(), tmp_path / 'x.pth')


# -- load_weights

@pytest.mark.parametrize('kind', [Network, Wrapper])
@pytest.mark.parametrize('wrapping', [name for name in WRAPPINGS if name != 'more'])
def test_load_weights(tmp_path, source, wrapping, kind):
    write_checkpoint(WRAPPINGS[wrapping](source.state_dict()), tmp_path / 'x.pth')
    model = kind()
    load_weights(model, tmp_path / 'x.pth')
    torch.testing.assert_close(model.eval()(X), source(X))


def test_load_weights_returns_what_lies_beside_them(tmp_path, source):
    meta = {'dataset_meta': {'classes': ('a', )}, 'epoch': 3}
    write_checkpoint({'state_dict': source.state_dict(), 'meta': meta}, tmp_path / 'x.pth')
    assert load_weights(Network(), str(tmp_path / 'x.pth')) == meta
    write_checkpoint(source.state_dict(), tmp_path / 'x.safetensors')
    assert load_weights(Network(), tmp_path / 'x.safetensors') == {}


def test_load_weights_takes_an_entry(tmp_path, source):
    zeros = {key: torch.zeros_like(value) for key, value in source.state_dict().items()}
    write_checkpoint({'model': zeros, 'model_ema': source.state_dict()}, tmp_path / 'x.pth')
    model = Network()
    load_weights(model, f'{tmp_path}/x.pth#model_ema')
    torch.testing.assert_close(model.state_dict(), source.state_dict(), rtol=0, atol=0)


def test_unknown_weights_are_refused(tmp_path, source):
    write_checkpoint(WRAPPINGS['more'](source.state_dict()), tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match='1 weights in it are not of the model, e.g. auxiliary.weight'):
        load_weights(Network(), tmp_path / 'x.pth')


def test_parts_of_a_model(tmp_path, source):
    """Backbone and neck are asked for; a classifier beside them is left out on both sides."""
    state = {key: value for key, value in source.state_dict().items() if not key.startswith('head.')}
    write_checkpoint({'model': {**state, 'head.fc.weight': torch.zeros(9, 2)}}, tmp_path / 'x.pth')
    model = Network()
    head = under('head.', {key: value.clone() for key, value in model.head.state_dict().items()})
    load_weights(model, tmp_path / 'x.pth', ('backbone.', 'neck.'))
    torch.testing.assert_close(dict(model.state_dict()), {**state, **head}, rtol=0, atol=0)
    del state['neck.bias']
    write_checkpoint({'model': state}, tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match='1 weights of the model are not in it, e.g. neck.bias'):
        load_weights(Network(), tmp_path / 'x.pth', ('backbone.', 'neck.'))
    load_weights(Network(), tmp_path / 'x.pth', ('backbone.', ))


def test_a_bare_backbone(tmp_path, source):
    write_checkpoint({'model': {**source.backbone.state_dict(), 'head.weight': torch.zeros(9, 2)}}, tmp_path / 'x.pth')
    model = Network()
    load_weights(model, tmp_path / 'x.pth', ('backbone.', ))
    torch.testing.assert_close(model.backbone.state_dict(), source.backbone.state_dict(), rtol=0, atol=0)
    with pytest.raises(CheckpointError, match='another model'):
        load_weights(model, tmp_path / 'x.pth')


def test_files_that_cannot_be_used(tmp_path):
    with pytest.raises(CheckpointNotFoundError, match='there is no checkpoint .*none.pth'):
        load_weights(Network(), tmp_path / 'none.pth')
    (tmp_path / 'text.pth').write_text('no checkpoint')
    with pytest.raises(CheckpointError, match='text.pth is not a checkpoint'):
        load_weights(Network(), tmp_path / 'text.pth')
    write_checkpoint({'epoch': 3}, tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match="1 of 1 entries do not, e.g. 'epoch'"):
        load_weights(Network(), tmp_path / 'x.pth')
