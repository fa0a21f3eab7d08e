"""Which operators mmcv.ops calls."""
from typing import Any

import pytest

pytest.importorskip('mmcv', reason='the bridge serves mmcv')

from mmcv_operators import load_compiled, use  # noqa: E402

from plugconv_mm.compat import mmcv_ops  # noqa: E402


@pytest.fixture
def bridged(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, mmcv_ops)


@pytest.fixture(scope='session')
def compiled() -> Any:
    return load_compiled()
