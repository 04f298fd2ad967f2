"""The relay of the documents: what ESPHome says of it, and its lambda at work. Run by `scripts/test --integrations`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.publishing import event
from tests.support.wrong_clock import WallClock

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "integrations" / "esphome.yaml"
PROGRAM = ROOT / ".venv-esphome" / "bin" / "esphome"
"""Put there by `scripts/test --integrations`."""
JSON = Path("/usr/include/nlohmann/json.hpp")

pytestmark = pytest.mark.integrations


@pytest.mark.skipif(not PROGRAM.exists(), reason="ESPHome is installed by scripts/test --integrations")
def test_esphome_accepts_it(tmp_path: Path) -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    secrets = {name: f"some-{name}" for name in re.findall(r"!secret (\w+)", text)}
    (tmp_path / "secrets.yaml").write_text(json.dumps(secrets))

    def config(changed: str) -> str:
        (tmp_path / EXAMPLE.name).write_text(changed, encoding="utf-8")
        answer = subprocess.run(
            [PROGRAM, "config", EXAMPLE.name],
            cwd=tmp_path,
            env={key: value for key, value in os.environ.items() if not key.startswith("PYTHON")},
            capture_output=True,
            text=True,
            timeout=100,
        )
        return answer.stdout + answer.stderr if answer.returncode else "valid"

    assert config(text) == "valid"
    assert "is an invalid option" in config(text.replace("clean_session", "clean_sessions"))


class Relay:
    """The lambda, compiled: it opens or not."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def knows(self, name: str, seconds: float) -> None:
        self._tell(f"{name} {seconds}")

    def opens(self, body: dict[str, Any]) -> bool:
        self._tell(json.dumps(body))
        assert self._process.stdout
        return {"1\n": True, "0\n": False}[self._process.stdout.readline()]

    def _tell(self, line: str) -> None:
        assert self._process.stdin
        print(line, file=self._process.stdin, flush=True)


@pytest.fixture
def clock(tmp_path: Path) -> WallClock:
    return WallClock(tmp_path)


@pytest.fixture
def relay(tmp_path: Path, clock: WallClock) -> Iterator[Relay]:
    if not shutil.which("g++") or not JSON.exists():
        pytest.skip("needs g++ and nlohmann-json3-dev, which scripts/test --integrations installs")
    text = EXAMPLE.read_text(encoding="utf-8")
    code = textwrap.dedent(text.partition("on_json_message:")[2].partition("- lambda: |-\n")[2])
    (tmp_path / "lambda.inc").write_text(code, encoding="utf-8")
    program = tmp_path / "relay"
    source = Path(__file__).parents[1] / "support" / "relay.cpp"
    options = ["-std=c++20", "-Wall", "-Wextra", "-Werror", f'-DLAMBDA="{tmp_path / "lambda.inc"}"']
    subprocess.run(["g++", *options, "-o", program, source], check=True)
    with subprocess.Popen(
        [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | clock.env
    ) as process:
        yield Relay(process)
        assert process.stdin
        process.stdin.close()


def payload(name: str | None = "Katya", **changes: Any) -> dict[str, Any]:
    now = time.time()
    return event(name, timestamp=now, expires_at=now + 60).payload() | changes


def test_the_relay_opens_once_for_each_live_pass(relay: Relay) -> None:
    now = time.time()
    relay.knows("since", now - 10)
    relay.knows("synchronised_at", now - 10)
    once = payload()
    assert relay.opens(payload())
    assert relay.opens(once)
    assert not relay.opens(once)
    assert relay.opens(payload())
    assert not relay.opens(once)
    assert not relay.opens(payload(None))
    assert not relay.opens(payload(type="face_event.history"))
    assert not relay.opens(payload(status="REJECT"))
    assert not relay.opens(payload(clock="unsynced"))
    assert not relay.opens(payload(demo=True))
    assert not relay.opens(payload(expires_at=time.time() - 0.05))
    assert not relay.opens(payload(timestamp=now - 11)), "decided before it was connected, so kept by the broker"
    short = payload(expires_at=time.time() + 0.5)
    assert relay.opens(short)
    time.sleep(0.6)
    assert not relay.opens(short)
    assert not relay.opens(once), "forgotten too early"


def test_the_relay_does_nothing_without_a_clock(relay: Relay, clock: WallClock) -> None:
    for hours, expected in ((6.1, False), (5.9, True)):
        relay.knows("synchronised_at", time.time() - hours * 3600)
        assert relay.opens(payload()) is expected
    relay.knows("synchronised_at", 0)
    clock.set(5 - time.time(), synced=False)  # as after a start: all events seem to be far from expiring
    assert not relay.opens(payload())
