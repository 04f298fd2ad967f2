"""Statistics, snapshots and discovery, on a real broker; Home Assistant itself is in test_home_assistant.py."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from edge_face.events import CameraStatus, Pause
from edge_face.settings import HomeAssistant
from edge_face.sinks import mqtt
from tests.support.broker import Broker, until, watching
from tests.support.mqtt import gate, statistics
from tests.support.publishing import AskedCameras, deadline, event

BASE = "edge-face/gate-1"
CONFIG = "homeassistant/device/edge-face-gate-1/config"
VERSIONS = pytest.mark.parametrize("version", ["5", "3.1.1"])


async def kept(broker: Broker, topic: str) -> bytes | None:
    """What the broker has there; None: nothing."""
    async with watching(broker) as watcher:
        await until(lambda: watcher.texts("/status"))
        await asyncio.sleep(0.2)
    found = [bytes(message.payload) for message in watcher.messages if str(message.topic) == topic]
    return found[0] if found else None


def parts(payload: bytes | str | None) -> dict[str, Any]:
    assert payload
    found: dict[str, Any] = json.loads(payload)["cmps"]
    return found


async def test_stats_come_at_once_soon_and_now_and_then(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (mqtt.FIRST_STATS_S, mqtt.STATS_S) == (5, 30)
    monkeypatch.setattr(mqtt, "FIRST_STATS_S", 0.1)
    monkeypatch.setattr(mqtt, "STATS_S", 0.4)
    async with watching(broker, f"{BASE}/stats") as watcher:
        async with gate(tmp_path, broker.options()):
            await until(lambda: len(watcher.messages) == 3)
        told = json.loads(watcher.texts("/stats")[-1])
        assert {"fps", "latency_ms", "temperature", "gallery", "version", "clock"} <= set(told)
        assert all(message.qos == 0 for message in watcher.messages)
        await asyncio.sleep(0.5)
        assert len(watcher.messages) <= 4
    assert await kept(broker, f"{BASE}/stats")


class TestSnapshots:
    async def test_one_follows_each_event_and_is_not_kept(self, broker: Broker, tmp_path: Path) -> None:
        topic = f"{BASE}/front/snapshot"
        async with (
            watching(broker, f"{BASE}/front/+") as watcher,
            gate(tmp_path, broker.options(snapshots=True)) as (_, publisher),
        ):
            await publisher.publish(event("Katya"), deadline())
            await until(lambda: any(str(message.topic) == topic for message in watcher.messages))
            [picture] = [message for message in watcher.messages if str(message.topic) == topic]
            assert (picture.payload, picture.qos, picture.retain) == (b"\xff\xd8 picturefront", 0, False)
            assert await kept(broker, topic) is None

    @VERSIONS
    async def test_a_command_asks_for_one_camera_or_all(
        self, broker: Broker, tmp_path: Path, version: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        command = f"{BASE}/cmd/snapshot"
        cameras = AskedCameras()
        options = broker.options(snapshots=True, version=version)
        async with aiomqtt.Client("127.0.0.1", broker.port) as home:
            await home.publish(command, "front", qos=1, retain=True)
            async with gate(tmp_path, options, cameras=cameras, ids=("front", "Кухня")):
                await until(lambda: "retained command" in caplog.text)
                assert cameras.pictures == []
                for text, expected in (("Кухня", ["Кухня"]), ("front", ["front"]), ("", ["front", "Кухня"])):
                    cameras.pictures.clear()
                    await home.publish(command, text, qos=1)
                    await until(lambda expected=expected: cameras.pictures == expected)  # type: ignore[misc]
                cameras.pictures.clear()
                await home.publish(command, "garden", qos=1)
                await until(lambda: "there is no camera 'garden'" in caplog.text)
                cameras.jpeg = None
                await home.publish(command, "front", qos=1)
                await until(lambda: "no snapshot is sent: The camera front gives no pictures" in caplog.text)

    async def test_they_are_off_unless_switched_on(
        self, broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        cameras = AskedCameras()
        async with (
            watching(broker) as watcher,
            gate(tmp_path, broker.options(), cameras=cameras) as (_, publisher),
            aiomqtt.Client("127.0.0.1", broker.port) as home,
        ):
            await publisher.publish(event("Katya"), deadline())
            await until(watcher.events)
            await home.publish(f"{BASE}/cmd/snapshot", "", qos=1)
            await until(lambda: "[mqtt] snapshots is off" in caplog.text)
        assert cameras.pictures == []
        assert watcher.texts("/snapshot") == [""]  # the command itself
        assert "front_snapshot" not in parts(watcher.texts("/config")[-1])

    async def test_a_picture_that_is_late_holds_up_no_event(self, broker: Broker, tmp_path: Path) -> None:
        class Slow(AskedCameras):
            async def picture(self, camera: str, *, small: bool = False) -> Any:
                await asyncio.sleep(30)

        async with (
            watching(broker) as watcher,
            gate(tmp_path, broker.options(snapshots=True), cameras=Slow()) as (_, publisher),
        ):
            for name in ("Ada", "Bob", "Cem"):
                await publisher.publish(event(name), deadline())
            await until(lambda: len(watcher.events()) == 3, 2)


class TestDiscovery:
    @VERSIONS
    async def test_home_assistant_that_begins_anew_is_told_everything(
        self, broker: Broker, tmp_path: Path, version: str
    ) -> None:
        async with (
            aiomqtt.Client("127.0.0.1", broker.port) as home,
            gate(tmp_path, broker.options(version=version)) as (_, publisher),
        ):
            publisher.state(CameraStatus("front", "ok"))
            publisher.state(Pause("front", False))
            await asyncio.sleep(0.3)
            for retain in (False, True):
                async with watching(broker) as watcher:
                    await asyncio.sleep(0.3)
                    watcher.messages.clear()
                    await home.publish("homeassistant/status", "offline", qos=1)
                    await asyncio.sleep(0.2)
                    assert [str(message.topic) for message in watcher.messages] == ["homeassistant/status"]
                    watcher.messages.clear()
                    await home.publish("homeassistant/status", "online", qos=1, retain=retain)
                    await until(lambda watcher=watcher: watcher.texts("/stats"))  # type: ignore[misc]
                    await until(lambda watcher=watcher: len(watcher.messages) >= 6)  # type: ignore[misc]
                    order = [str(message.topic) for message in watcher.messages if "/stats" not in str(message.topic)]
                    assert order[0] == "homeassistant/status"
                    assert order[1] == CONFIG
                    assert set(order[2:]) == {f"{BASE}/front/{leaf}" for leaf in ("camera", "paused", "presence")}
            assert parts(await kept(broker, CONFIG))["front_event"]["state_topic"] == f"{BASE}/front/event"

    @pytest.mark.parametrize(
        "left",
        [
            b'{"cmps": {"\\ud800": {"p": "sensor"}}}',
            b'{"cmps": {"' + "Кухня".encode() + b'": {"p": "sensor"}}}',
            b"[" * 100_000,
            json.dumps({"cmps": {f"x{number}": {"p": "sensor"} for number in range(100_000)}}).encode(),
            b"\xff\xfe",
        ],
        ids=["half a character", "no ASCII", "nested", "large", "no text"],
    )
    async def test_whatever_somebody_left_there_it_goes_on(self, broker: Broker, tmp_path: Path, left: bytes) -> None:
        """It would end the daemon, at each start anew."""
        async with gate(tmp_path, broker.options()):
            ours = set(parts(await kept(broker, CONFIG)))
        async with aiomqtt.Client("127.0.0.1", broker.port) as somebody:
            await somebody.publish(CONFIG, left, qos=1, retain=True)
        async with watching(broker, f"{BASE}/front/+") as watcher, gate(tmp_path, broker.options()) as (_, publisher):
            await asyncio.sleep(0.3)
            await publisher.publish(event("Katya"), deadline())
            await until(watcher.events)
            assert set(parts(await kept(broker, CONFIG))) == ours

    async def test_switched_off_it_is_taken_back_and_otherwise_nothing_is_said(
        self, broker: Broker, tmp_path: Path
    ) -> None:
        off = HomeAssistant(discovery=False)
        async with watching(broker, "homeassistant/#") as watcher, gate(tmp_path, broker.options(), homeassistant=off):
            await asyncio.sleep(0.5)
            assert watcher.messages == []
        async with gate(tmp_path, broker.options()):
            await asyncio.sleep(0.3)
        assert await kept(broker, CONFIG)
        async with gate(tmp_path, broker.options(), homeassistant=off):
            await asyncio.sleep(0.5)
        assert await kept(broker, CONFIG) is None

    @VERSIONS
    async def test_what_is_gone_is_removed(self, broker: Broker, tmp_path: Path, version: str) -> None:
        options = broker.options(version=version, snapshots=True)
        async with gate(tmp_path, options, ids=("front", "back")):
            await until_kept(broker, lambda found: "back_snapshot" in found)
        options = broker.options(version=version)
        async with gate(tmp_path, options, ids=("front",), status=lambda: statistics(None)):
            await until_kept(broker, lambda found: found.get("back_event") == {"p": "event"})
            found = parts(await kept(broker, CONFIG))
        assert found["front_snapshot"] == found["back_snapshot"] == {"p": "image"}
        assert found["temperature"] == {"p": "sensor"}
        assert found["front_event"]["event_types"]

    @pytest.mark.parametrize(
        "junk",
        [
            *(b"\xff", b"[]", b"{}", b"[" * 100_000, b'{"cmps": 1}'),
            *(b'{"cmps": {"x": {"p": ["lock"]}}}', b'{"cmps": {"x": {"p": "lock"}}}'),
        ],
        ids=range(7),
    )
    async def test_junk_that_somebody_left_there_is_written_over(
        self, broker: Broker, tmp_path: Path, junk: bytes
    ) -> None:
        async with aiomqtt.Client("127.0.0.1", broker.port) as other:
            await other.publish(CONFIG, junk, qos=1, retain=True)
        async with gate(tmp_path, broker.options()) as (sink, _):
            await asyncio.sleep(0.3)
            assert sink.healthy
            assert set(parts(await kept(broker, CONFIG))) >= {"front_event"}
            assert "x" not in parts(await kept(broker, CONFIG))

    async def test_another_prefix(self, broker: Broker, tmp_path: Path) -> None:
        async with (
            watching(broker) as watcher,
            gate(tmp_path, broker.options(), homeassistant=HomeAssistant(prefix="ha/found")),
            aiomqtt.Client("127.0.0.1", broker.port) as home,
        ):
            await until(lambda: len(watcher.texts("ha/found/device/edge-face-gate-1/config")) == 1)
            await home.publish("ha/found/status", "online", qos=1)
            await until(lambda: len(watcher.texts("ha/found/device/edge-face-gate-1/config")) == 2)


async def until_kept(broker: Broker, holds: Any) -> None:
    async with watching(broker, CONFIG) as watcher:
        await until(lambda: any(holds(parts(text)) for text in watcher.texts("/config")))
