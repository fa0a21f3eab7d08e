"""The working directory of tests of commands."""
import logging
from collections.abc import Iterator

import pytest
from repository import ROOT


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in the repository's root, from which configs are named, and restore the log level that commands set."""
    monkeypatch.chdir(ROOT)
    level = logging.root.level
    yield
    logging.root.setLevel(level)
