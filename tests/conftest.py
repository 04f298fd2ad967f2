"""Fixtures that several tests use: real photos that installed packages ship, and the evaluation data where it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_face import settings
from edge_face.engine import Engine
from edge_face.vision import models
from tests.support.photos import astronaut, hopper, jpeg

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def data() -> Path:
    """Photos and clips of real people, which are not part of the project."""
    folder = Path(os.environ.get("EDGEFACE_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the evaluation data is not at {folder}; name its folder in EDGEFACE_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def loaded_models() -> models.Models:
    return models.load(settings.Engine())


@pytest.fixture
def engine(loaded_models: models.Models) -> Engine:
    # However slow the machine, no frame is too old: of one that would be, less is looked at.
    return Engine(loaded_models, settings.Engine(), max_age_s=1e6)


@pytest.fixture(scope="session")
def eileen() -> bytes:
    """Eileen Collins, the demo's enrolled person, as JPEG."""
    return jpeg(astronaut())


@pytest.fixture(scope="session")
def grace() -> bytes:
    """Grace Hopper, the demo's stranger, as JPEG."""
    return jpeg(hopper())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two run at a time: one that takes as long as all the others together starts first. Whoever runs it keeps the next
    one as well, which therefore is a short one."""
    items.sort(key=lambda item: marker.args[0] if (marker := item.get_closest_marker("early")) else 9)


@pytest.fixture(autouse=True)
def no_environment_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith("EDGE_FACE__")]:
        monkeypatch.delenv(variable)
