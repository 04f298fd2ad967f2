"""A store on a temporary file, under a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_face.store import Store
from tests.support.clock import HandClock


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "edge-face.db"


@pytest.fixture
def store(path: Path, clock: HandClock) -> Iterator[Store]:
    store = Store(path, clock)
    yield store
    store.close()
