import types

import pytest
import torch

pytest.importorskip('mmengine')

from torch import nn  # noqa: E402

from plugconv_mm.engine.hooks import ParCBackendHook, parc_backend  # noqa: E402
from plugconv_mm.ops import ParC2d  # noqa: E402


def test_says_once_what_is_used_where(monkeypatch):
    lines = []
    monkeypatch.setattr(parc_backend, 'print_log', lambda line, logger: lines.append(line))
    model = nn.Sequential(ParC2d(4, 'H', 7, backend='fft'), ParC2d(4, 'W', 7, backend='gemm'), nn.MaxPool2d(2),
                          ParC2d(4, 'W', 7, backend='fft'))
    runner, hook = types.SimpleNamespace(model=model), ParCBackendHook()
    for size in (40, 48):
        hook.before_val_iter(runner, 0)
        model(torch.randn(1, 4, 20, size))
        hook.after_val_iter(runner, 0)
    hook.before_test_iter(runner, 0)
    model(torch.randn(2, 4, 8, 8))
    hook.after_test_iter(runner, 0)
    assert len(lines) == 2
    assert 'first val iteration' in lines[0] and 'gemm at 20x40 (1x), fft at 20x40 (1x), fft at 10x20 (1x)' in lines[0]
    assert 'first test iteration' in lines[1] and 'fft at 8x8 (1x)' in lines[1]
    assert not any(layer._forward_hooks for layer in model)


def test_a_model_without_parc_logs_nothing(monkeypatch):
    monkeypatch.setattr(parc_backend, 'print_log', lambda *args, **kwargs: pytest.fail('something was logged'))
    runner, hook = types.SimpleNamespace(model=nn.ReLU()), ParCBackendHook()
    hook.before_train_iter(runner, 0)
    hook.after_train_iter(runner, 0)
