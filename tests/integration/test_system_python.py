"""scripts/install on a Debian with too old a Python: uv's own interpreter, or a plain sentence and nothing changed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.test_system import CONFIG, STATE, Gate
from tests.support.machine import Machine

pytestmark = pytest.mark.system


@pytest.fixture
def gate() -> Iterator[Gate]:
    machine = Machine("bullseye")
    try:
        machine.boot()
        gate = Gate(machine)
        gate.copy_source()
        yield gate
    finally:
        machine.power_off()


def test_a_python_that_is_too_old_is_answered(gate: Gate) -> None:
    assert "Python 3.9" in gate.machine("python3", "--version")
    said = gate.install(check=False)
    if "edge-face is installed and starts" in said:
        python = gate.machine("readlink", "--canonicalize", "/opt/edge-face/current/.venv/bin/python")
        assert python.startswith("/opt/edge-face/python/cpython-3.11")
        gate.machine.until(lambda: gate.machine.show("ActiveState") == "active")
    else:
        assert "Please install Python 3.11 or later" in said
        assert said.rstrip().endswith("could not be made ready (the message is above).")
        for place in ("/opt/edge-face", CONFIG, STATE, "/etc/systemd/system/edge-face.service"):
            assert not gate.machine.path(place).exists(), place
        assert "edge-face" not in gate.machine("getent", "passwd")
