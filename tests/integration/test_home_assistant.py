"""A real Home Assistant core finds a real daemon on a real broker. Run by `scripts/test --home-assistant`."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from edge_face import settings
from edge_face.sinks.mqtt_messages import Topics
from tests.integration.test_daemon import write_clip
from tests.support.broker import Broker
from tests.support.daemon import Daemon, write_config
from tests.support.home_assistant import PROGRAM, HomeAssistant
from tests.support.mqtt import gate
from tests.support.photos import astronaut, blank

pytestmark = [
    pytest.mark.home_assistant,
    pytest.mark.skipif(not PROGRAM.exists(), reason="Home Assistant is installed by scripts/test --home-assistant"),
]

NODE, CAMERA = "Ворота 🚪", "Кухня"
NAME = 'Eileen "Кати" O\'Neil {{ 1 }} 🙂'
LEVELS = Topics(NODE).of(CAMERA, "").split("/")[1:3]
ID = "_".join(LEVELS).replace("-", "_")
EVENT, PRESENCE, PERSON = f"event.{ID}_event", f"binary_sensor.{ID}_presence", f"sensor.{ID}_person"
PROBLEM, FPS, LATENCY = f"binary_sensor.{ID}_problem", f"sensor.{ID}_fps", f"sensor.{ID}_latency"
PAUSE, SNAPSHOT = f"switch.{ID}_pause", f"image.{ID}_snapshot"
ALL = {EVENT, PRESENCE, PERSON, PROBLEM, FPS, LATENCY, PAUSE, SNAPSHOT}
OPENED = "input_boolean.opened"


@pytest.fixture
def home(tmp_path: Path, broker: Broker) -> Iterator[HomeAssistant]:
    with HomeAssistant(tmp_path, broker.port, EVENT) as home:
        yield home


def wait(condition: Callable[[], Any], what: str, home: HomeAssistant, limit_s: float = 30) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: it did not happen\n{home.states()}\n{home.log}"
        time.sleep(0.1)


async def test_a_daemon_appears_fires_an_automation_is_paused_and_comes_back(
    tmp_path: Path, broker: Broker, home: HomeAssistant, eileen: bytes
) -> None:
    await asyncio.to_thread(_live_through_it, tmp_path, broker, home, eileen)


def _live_through_it(tmp_path: Path, broker: Broker, home: HomeAssistant, eileen: bytes) -> None:
    clip = write_clip(tmp_path / "clip.avi", (astronaut(), 2), (blank(), 1.5))
    config = write_config(
        tmp_path,
        {
            "node": {"id": NODE},
            f"camera:{CAMERA}": {"source": clip, "loop": "true"},
            "decision": {"cooldown": 600, "presence_timeout": 0.7},
            "mqtt": {"host": "127.0.0.1", "port": broker.port, "snapshots": "true"},
        },
    )

    def shown(entity: str, expected: str) -> Callable[[], bool]:
        return lambda: home.state(entity) == expected

    def event(kind: str) -> Callable[[], bool]:
        return lambda: home.states()[EVENT]["attributes"].get("event_type") == kind

    def alive() -> bool:
        states = {id: state["state"] for id, state in home.states().items()}
        numbers = (states.get(FPS, ""), states.get(LATENCY, ""))
        return (
            all(re.fullmatch(r"[0-9.]+", number) and float(number) > 0 for number in numbers)
            and (states.get(PROBLEM), states.get(PAUSE)) == ("off", "off")
            and states.get(PRESENCE) in ("on", "off")
        )

    with Daemon(config) as daemon:
        daemon.wait_for("ok", "degraded")
        wait(lambda: set(home.states()) >= ALL, "entities", home)
        [device] = [found for found in home.devices() if found["manufacturer"] == "edge-face"]
        assert (device["name"], device["identifiers"]) == (NODE, [["mqtt", f"edge-face-{LEVELS[0]}"]])
        found = [entity for entity in home.entities() if entity["device_id"] == device["id"]]
        assert {entity["entity_id"] for entity in found} == ALL
        assert {entity["original_name"] for entity in found} >= {f"{CAMERA} visitor", f"{CAMERA} pause"}
        wait(alive, "all of it has a state", home)

        wait(event("unknown"), "a stranger", home)
        assert home.state(OPENED) == "off"
        enrolled = daemon.post("/register", data={"name": NAME}, files={"image": ("e.jpg", eileen)})
        assert enrolled.status_code == 200, enrolled.text
        wait(shown(OPENED, "on"), "the automation", home)
        wait(shown(PERSON, NAME), "the name", home)
        told = home.states()[EVENT]["attributes"]
        assert (told["event_type"], told["name"], told["status"]) == ("granted", NAME, "PASS")
        assert told["expires_at"] - told["timestamp"] == pytest.approx(5)
        wait(lambda: home.states()[PRESENCE]["attributes"].get("persons") == [NAME], "who is there", home)
        wait(shown(PRESENCE, "on"), "presence", home)
        wait(shown(PRESENCE, "off"), "absence", home)
        assert home.image(SNAPSHOT)[:2] == b"\xff\xd8"

        home.call("switch.turn_on", PAUSE)
        wait(shown(PAUSE, "on"), "the pause is shown", home)
        assert daemon.get("/api/v1/cameras").json()["items"][0]["paused"] is True
        home.call("switch.turn_off", PAUSE)
        wait(shown(PAUSE, "off"), "its end is shown", home)
        assert daemon.get("/api/v1/cameras").json()["items"][0]["paused"] is False

        home.stop()
        home.start()
        wait(lambda: set(home.states()) >= ALL and alive(), "all is back after a restart of Home Assistant", home)
        assert home.state(PERSON) == "unknown"

        assert daemon.end()[0] == 0
        wait(lambda: {home.state(entity) for entity in ALL} == {"unavailable"}, "it is away", home)
    with Daemon(config) as daemon:
        wait(alive, "all is back after a restart of edge-face", home)
        broker.stop()
        wait(lambda: home.state(FPS) == "unavailable", "the broker is away", home)
        broker.start()  # and knows nothing any more
        wait(alive, "all is back after a restart of the broker", home)
        # Its last event is shown again each time, which sets off whoever does not look at `expires_at`.
        assert event("granted")()
        assert home.state(OPENED) == "off", "an old event opened"

        [person] = daemon.get("/api/v1/people").json()["items"]
        address = f"{daemon.url}/api/v1/people/{person['id']}"
        assert requests.patch(address, json={"blocked": True}, headers=daemon.auth, timeout=10).ok
        wait(event("denied"), "a refusal", home)
        told = home.states()[EVENT]["attributes"]
        assert (told["reason"], told["name"], home.state(OPENED)) == ("not_allowed", NAME, "off")
        daemon.end()
    assert home.complaints() == []


async def test_temperature_appears_and_what_is_gone_goes(tmp_path: Path, broker: Broker, home: HomeAssistant) -> None:
    async def shows(what: str, condition: Callable[[dict[str, Any]], bool]) -> None:
        for _ in range(100):
            states = await asyncio.to_thread(home.states)
            if condition(states):
                return
            await asyncio.sleep(0.1)
        pytest.fail(f"{what}\n{states}\n{home.log}")

    both, one = ("front", "back"), ("front",)
    fronts = "binary_sensor.gate_1_front_presence", "binary_sensor.gate_1_back_presence"
    async with gate(tmp_path, broker.options(), ids=both):
        await shows("the temperature", lambda s: s.get("sensor.gate_1_temperature", {}).get("state") == "51.5")
        found = (await asyncio.to_thread(home.states))["sensor.gate_1_temperature"]
        assert found["attributes"]["unit_of_measurement"] == "°C"
        await shows("both cameras", lambda s: all(s.get(id, {}).get("state") == "off" for id in fronts))
    async with gate(tmp_path, broker.options(), ids=one):
        await shows("one camera", lambda s: fronts[0] in s and fronts[1] not in s)
    async with gate(tmp_path, broker.options(), ids=one, homeassistant=settings.HomeAssistant(discovery=False)):
        await shows("none", lambda s: not any("gate_1" in id for id in s))
    assert home.complaints() == []
