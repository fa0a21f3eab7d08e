"""Which errors end in a plain message, and which keep their traceback."""
import inspect

import pytest
import torch
from torch import nn

pytest.importorskip('mmengine')

from plugconv_mm import errors  # noqa: E402
from plugconv_mm.runtime.user_errors import explain, plain_errors  # noqa: E402

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize('kind', KINDS)
def test_an_error_of_the_user_is_its_message(kind, monkeypatch):
    assert issubclass(kind, errors.UserError)
    with pytest.raises(SystemExit) as end, plain_errors('tool.py'):
        raise kind('do this')
    assert end.value.code == 'tool.py: error: do this'
    monkeypatch.setenv('PLUGCONV_TRACEBACK', '1')
    with pytest.raises(kind), plain_errors('tool.py'):
        raise kind('do this')


@pytest.mark.parametrize('kind', [ValueError, RuntimeError, OSError, ImportError, KeyError])
def test_other_errors_stay(kind):
    with pytest.raises(kind), plain_errors('tool.py'):
        raise kind('a bug')


def test_a_batch_norm_with_one_value():
    """As behind a pooling to 1x1 with one image."""
    layer = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4))
    with pytest.raises(ValueError) as error:
        layer(torch.ones(1, 4, 8, 8))
    message = explain(error.value)
    assert 'at least two samples in each process' in message and 'train_dataloader.batch_size=2' in message
