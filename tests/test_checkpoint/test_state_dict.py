"""The state dict inside a checkpoint, whatever wraps it."""
import pytest
import torch

from plugconv_mm.checkpoint import convert_with_report, state_dict_of
from plugconv_mm.checkpoint.state_dict import find_weights, split_entry
from plugconv_mm.errors import CheckpointError

STATE = {'stem.weight': torch.zeros(1), 'stages.0.weight': torch.ones(1)}
AVERAGED = {key: value + 5 for key, value in STATE.items()}


def under(prefix, state=STATE):
    return {prefix + key: value for key, value in state.items()}


def same(a, b):
    return a.keys() == b.keys() and all(a[key] is b[key] for key in a)


@pytest.mark.parametrize('checkpoint', [
    STATE,
    *({name: STATE, 'epoch': 3, 'optimizer': {'state': {}}} for name in (
        'state_dict', 'model', 'module', 'model_state_dict', 'model_state', 'net', 'params', 'model_ema',
        'state_dict_ema', 'ema', 'params_ema')),
    {'model': {'state_dict': STATE}},
    {'state_dict': {}, 'model': STATE},
    *(under(prefix) for prefix in ('module.', 'model.', '_orig_mod.', 'module._orig_mod.', '_orig_mod.module.',
                                   'model.module.', 'model._orig_mod.')),
    {'stem._orig_mod.weight': STATE['stem.weight'], 'stages.0._orig_mod.weight': STATE['stages.0.weight']},
    {'n_averaged': torch.tensor(7), **under('module.')},
    {**STATE, 'total_ops': torch.zeros(1), 'stages.0.total_params': torch.zeros(1)},
], ids=lambda checkpoint: '-'.join([*checkpoint][:2]))
def test_wrappers_come_off(checkpoint):
    assert same(state_dict_of(checkpoint), STATE)


@pytest.mark.parametrize('state', [
    {'model.weight': torch.zeros(1), 'head.weight': torch.zeros(1)},
    {'steps': torch.zeros(1), 'weight': torch.zeros(1)},
    {'total_ops_head.weight': torch.zeros(1)},
    {'a._orig_mod.weight': torch.zeros(1), 'a.weight': torch.ones(1)},
    {'weight': torch.zeros(1), 'quant._extra_state': {'scale': 3}},
], ids=['some', 'counter', 'name', 'collision', 'extra'])
def test_names_of_the_model_stay(state):
    assert same(state_dict_of(state), state)


@pytest.mark.parametrize('plain, averaged', [('model', 'model_ema'), ('state_dict', 'state_dict_ema')])
def test_of_several_sets_one_is_chosen(plain, averaged):
    checkpoint = {averaged: under('module.', AVERAGED), plain: STATE}
    assert same(state_dict_of(checkpoint), STATE)
    assert same(state_dict_of(checkpoint, averaged), AVERAGED)
    assert same(state_dict_of({'model': checkpoint}, averaged), AVERAGED)
    found = find_weights(checkpoint)
    assert found.place == (plain, ) and found.averaged == (averaged, )
    assert f"those under '{plain}' are used; #{averaged} behind" in found.choice
    assert not find_weights({**checkpoint, averaged: {}}).choice


def test_an_entry_that_is_not_there():
    with pytest.raises(CheckpointError, match="no weights under 'ema'; its entries are 'model', 'optimizer'$"):
        state_dict_of({'model': STATE, 'optimizer': {}, 'epoch': 3}, 'ema')
    with pytest.raises(CheckpointError, match="no weights under 'ema'; it is a state dict itself"):
        state_dict_of(STATE, 'ema')


def test_an_entry_behind_the_name_of_a_file(tmp_path):
    assert split_entry('a/b.pth') == ('a/b.pth', '')
    assert split_entry('a/b.pth#model_ema') == ('a/b.pth', 'model_ema')
    assert split_entry('https://x.org/b.pth?download=1#ema') == ('https://x.org/b.pth?download=1', 'ema')
    assert split_entry('runs/#3/b.pth') == ('runs/#3/b.pth', '')
    (tmp_path / 'b#3.pth').write_bytes(b'x')
    assert split_entry(tmp_path / 'b#3.pth') == (str(tmp_path / 'b#3.pth'), '')


def test_the_report_counts_what_profilers_left():
    state = {'stages.0.0.gnconv.proj_in.weight': torch.zeros(4, 2, 1, 1), 'total_ops': torch.zeros(1),
             'stages.0.0.gnconv.total_ops': torch.zeros(1), 'stages.0.0.gnconv.total_params': torch.zeros(1),
             'head.weight': torch.zeros(3, 2), 'head.total_ops': torch.zeros(1)}
    for wrapped in (state, under('backbone.', state)):
        ours, report = convert_with_report({'model': wrapped})
        assert ours.keys() == {'stages.0.0.gnconv.proj_in.weight'}
        assert report == 'HorNet: 1 tensors, 0 of them renamed, 5 dropped, of which 4 are counters of a profiler'
