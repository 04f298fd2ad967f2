"""A real daemon whose wall clock is wrong, jumps, and becomes right."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.integration.test_daemon import write_clip
from tests.support.broker import Broker, Watcher, until, watching
from tests.support.daemon import Daemon, edge_face, write_config
from tests.support.photos import astronaut, blank, hopper
from tests.support.receiver import Receiver
from tests.support.wrong_clock import WallClock

HOUR = 3600.0


@pytest.fixture
def clock(tmp_path: Path) -> WallClock:
    return WallClock(tmp_path)


@pytest.fixture
def config(tmp_path: Path, broker: Broker, receiver: Receiver, eileen: bytes) -> Path:
    """Eileen, who is enrolled, and a stranger come by again and again; she passes once in ten minutes."""
    clip = write_clip(tmp_path / "clip.avi", (astronaut(), 0.8), (blank(), 0.2), (hopper(), 0.8), (blank(), 0.2))
    config = write_config(
        tmp_path,
        {
            "camera": {"source": clip, "loop": "true"},
            "decision": {"cooldown": 600, "presence_timeout": 4},
            "mqtt": {"host": "127.0.0.1", "port": broker.port},
            "webhook": {"url": receiver.url, "events": "PASS, REJECT", "secret": "test"},
        },
    )
    (tmp_path / "e.jpg").write_bytes(eileen)
    assert edge_face("enroll", "Eileen", tmp_path / "e.jpg", config=config).returncode == 0
    return config


def newest(watcher: Watcher) -> dict[str, Any]:
    return watcher.events()[-1]


async def more_events(watcher: Watcher, count: int = 2) -> list[dict[str, Any]]:
    """The next ones, live."""
    before = len(watcher.events())
    await until(lambda: len(watcher.events()) >= before + count, 30)
    return watcher.events()[before:]


async def test_the_clock_is_set_forward_and_back_by_an_hour(
    config: Path, clock: WallClock, broker: Broker, receiver: Receiver
) -> None:
    """Whoever is told as let in, when, and until when the event holds: all of it goes on as if nothing had happened."""
    async with watching(broker) as watcher:
        with Daemon(config, env=clock.env) as daemon:
            auth = {"Authorization": f"Bearer {await asyncio.to_thread(lambda: daemon.token)}"}
            await until(lambda: any(event["status"] == "PASS" for event in watcher.events()), 30)
            for offset_s in (HOUR, -HOUR, 0.0):
                clock.set(offset_s, synced=True)
                await asyncio.sleep(0.6)  # frames of before are over
                told = (await more_events(watcher, 2))[-1]
                assert abs(told["timestamp"] - clock.now()) < 4
                assert "clock" not in told
                assert requests.get(daemon.url + "/api/v1/status", headers=auth, timeout=9).status_code == 200
            status = requests.get(daemon.url + "/api/v1/status", headers=auth, timeout=9).json()
            assert daemon.end()[0] == 0
        watched = watcher.events()
        expiry = [
            message.properties.MessageExpiryInterval  # type: ignore[union-attr]
            for message in watcher.messages
            if str(message.topic).endswith("/event")
        ]
        presences = [json.loads(text)["present"] for text in watcher.texts("/presence")]
    assert [event["name"] for event in watched if event["status"] == "PASS"] == ["Eileen"], (
        "the cooldown is over too soon"
    )
    assert [event["seq"] for event in watched] == list(range(1, len(watched) + 1))
    assert all(event["expires_at"] - event["timestamp"] == pytest.approx(5, abs=0.002) for event in watched)
    assert all(0 <= event["latency_ms"] < 5000 for event in watched)
    assert all(1 <= left <= 5 for left in expiry), expiry
    for sink in status["sinks"].values():
        assert (sink["expired"], sink["refused"], sink["retries"]) == (0, 0, 0)
    assert status["queues"] == {} or all(queue["oldest_s"] < 60 for queue in status["queues"].values())
    assert presences[0] is False
    assert all(presences[1:-1]), "presence ended in between"
    assert len(receiver.bodies) >= len(watched) - 1
    for sent_at, body in zip(receiver.stamps, receiver.bodies, strict=True):
        assert abs(sent_at - body["timestamp"]) < 5, "the signature's time is another than the event's"


async def test_a_clock_that_is_unset_at_the_start_and_becomes_right(
    config: Path, clock: WallClock, broker: Broker
) -> None:
    """A board without a battery begins in 1970. It lets people in, says what it does not know, and deletes nothing."""
    began = time.time()
    clock.set(100 - began, synced=False)
    async with watching(broker) as watcher:
        with Daemon(config, env=clock.env) as daemon:
            told = (await more_events(watcher, 2))[0]
            assert told["name"] == "Eileen"
            assert all(event["clock"] == "unsynced" for event in watcher.events())
            assert told["timestamp"] < 1000
            assert told["time"].startswith("1970-01-01T00:0")
            assert told["expires_at"] - told["timestamp"] == pytest.approx(5, abs=0.002)
            assert requests.get(daemon.url + "/healthz", timeout=5).json()["clock"] == "unsynced"
            assert daemon.get("/api/v1/status").json()["clock"] == "unsynced"

            clock.set(0.0, synced=True)
            at = time.monotonic()
            await until(lambda: requests.get(daemon.url + "/healthz", timeout=5).json()["clock"] == "synced", 10)
            assert time.monotonic() - at < 5
            right = (await more_events(watcher, 2))[-1]
            assert "clock" not in right
            assert abs(right["timestamp"] - time.time()) < 4
            listed = daemon.get("/api/v1/events", since=str(began - 60)).json()["items"]
            assert [event["seq"] for event in listed][-1] == 1, "events of before have their date now"
            assert listed[-1]["clock"] == "unsynced", "and are shown as they were told"

            clock.set(0.0, synced=False)
            await until(lambda: requests.get(daemon.url + "/healthz", timeout=5).json()["clock"] == "unsynced", 10)
            assert daemon.end()[0] == 0
    passes = [event["name"] for event in watcher.events() if event["status"] == "PASS"]
    assert passes == ["Eileen"], "fifty years are no cooldown"
