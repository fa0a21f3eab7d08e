"""Recorded outputs of the published implementations, and how their weights and inputs are drawn.

A file of ``tests/data/recorded`` lists the names and shapes of a published checkpoint, inputs, and samples of what the
published code answered. Values are not stored: weights and inputs are standard normal numbers of a generator that is
seeded with their name.
"""
import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parents[1] / 'data' / 'recorded'


def load(name):
    """The record of this name."""
    return json.loads((FOLDER / f'{name}.json').read_text())


def names(family):
    """The names of all records of a family."""
    return [path.stem for path in sorted(FOLDER.glob('*.json')) if load(path.stem)['family'] == family]


def _normal(seed, shape):
    bits = np.random.PCG64(zlib.crc32(seed.encode()))
    return np.random.Generator(bits).standard_normal(tuple(shape))


def _tensor(values):
    return torch.tensor(values, dtype=torch.float32)


def draw(tag, shape):
    """An input, or an operator's parameter, of the record."""
    return _tensor(_normal(f'input:{tag}', shape))


def _parameter(name, shape, gain):
    kind = name.split('.')[-1]
    if kind == 'num_batches_tracked':
        return torch.tensor(0)
    values = _normal(name, shape)
    if kind == 'running_var':
        values = np.abs(values) + 0.5
    elif len(shape) < 2:  # scales lie around one, shifts and means around nought
        values = 0.1 * values + (kind in ('weight', 'gamma', 'gamma1', 'gamma2'))
    elif kind.startswith(('pe', 'meta_pe')) or kind == 'complex_weight':
        values = 0.5 * values
    elif kind == 'gamma':
        values = 0.1 * values + 1
    elif name.startswith('warehouse_manager.weights'):
        values = gain * values * math.sqrt(shape[0] / math.prod(shape[2:]))
    else:  # kernels and matrices keep the variance
        values = gain * values / math.sqrt(math.prod(shape[1:]))
    return _tensor(values)


def checkpoint(record):
    """The published checkpoint of the record."""
    return {name: _parameter(name, shape, record.get('gain', 1.0)) for name, shape in record['keys']}


def inputs(record, number):
    """The input of one case: a tensor, or a list of them."""
    tag, shape = f'{record["name"]}:{number}', record['cases'][number]['input']
    if isinstance(shape[0], int):
        return draw(tag, shape)
    return [draw(f'{tag}:{level}', level_shape) for level, level_shape in enumerate(shape)]


def assert_matches(output, expected, tolerance=2e-3):
    """Fails unless shape, mean, deviation and the sampled values agree, within `tolerance` deviations."""
    assert list(output.shape) == expected['shape']
    values = output.detach().double().reshape(-1)
    assert torch.isfinite(values).all()
    samples = values[expected['index']].numpy()
    unit = tolerance * max(expected['std'], 1e-6)
    np.testing.assert_allclose(samples, expected['value'], rtol=0, atol=unit)
    np.testing.assert_allclose([values.mean(), values.std()], [expected['mean'], expected['std']], rtol=0, atol=unit)


def assert_model_matches(record, build, tolerance=2e-3):
    """Builds the record's model, loads its checkpoint through the conversion, and compares every case.

    Args:
        record: From :func:`load`.
        build: Makes a model of the record's config.
    """
    from plugconv_mm.checkpoint import convert_official
    model = build(dict(record['build'])).eval()
    model.load_state_dict(convert_official(checkpoint(record)), strict=True)
    assert record['cases']
    for number, case in enumerate(record['cases']):
        with torch.no_grad():
            outputs = model(inputs(record, number))
        outputs = [outputs] if torch.is_tensor(outputs) else list(outputs)
        assert len(outputs) == len(case['outputs'])
        for output, expected in zip(outputs, case['outputs'], strict=True):
            assert_matches(output, expected, tolerance)
