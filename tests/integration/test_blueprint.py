"""The blueprint of the documents in a real Home Assistant. Run by `scripts/test --home-assistant`."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from tests.support.broker import Broker
from tests.support.home_assistant import PROGRAM, HomeAssistant
from tests.support.mqtt import gate
from tests.support.publishing import event

pytestmark = [
    pytest.mark.home_assistant,
    pytest.mark.skipif(not PROGRAM.exists(), reason="Home Assistant is installed by scripts/test --home-assistant"),
]

DOCUMENTS = Path(__file__).parents[2] / "docs" / "integrations"
VISITOR, COUNT = "event.gate_1_front_event", "counter.unlocked"
# A lock that counts how often it was asked.
LOCK = """
counter:
  unlocked:
lock:
  - platform: template
    name: gate
    value_template: "{{ false }}"
    lock: []
    unlock:
      - action: counter.increment
        target:
          entity_id: counter.unlocked
"""


@pytest.fixture
def home(tmp_path: Path, broker: Broker) -> Iterator[HomeAssistant]:
    home = HomeAssistant(tmp_path, broker.port)
    folder = tmp_path / "home-assistant"
    place = folder / "blueprints" / "automation" / "edge-face"
    place.mkdir(parents=True)
    shutil.copy(DOCUMENTS / "blueprint.yaml", place)
    page = (DOCUMENTS / "home-assistant.md").read_text(encoding="utf-8")
    with (folder / "configuration.yaml").open("a", encoding="utf-8") as file:
        file.write(LOCK + page.partition("```yaml\n")[2].partition("```")[0])
    with home:
        yield home


class Door:
    """The lock as Home Assistant shows it, and events that come to it by MQTT."""

    def __init__(self, home: HomeAssistant, broker: Broker) -> None:
        self._home = home
        self._broker = broker

    async def shows(self, **expected: Any) -> dict[str, Any]:
        """The visitor entity, once it has these attributes, or this `state`."""
        deadline = time.monotonic() + 30
        while True:
            shown = (await asyncio.to_thread(self._home.states)).get(VISITOR, {"state": None, "attributes": {}})
            if expected.items() <= (shown["attributes"] | {"state": shown["state"]}).items():
                return shown
            assert time.monotonic() < deadline, f"{expected}\n{shown}\n{self._home.log}"
            await asyncio.sleep(0.05)

    async def send(self, body: dict[str, Any], *, retain: bool = False) -> None:
        async with aiomqtt.Client("127.0.0.1", self._broker.port) as client:
            await client.publish("edge-face/gate-1/front/event", json.dumps(body), qos=1, retain=retain)

    async def opens(self, body: dict[str, Any]) -> bool:
        """Whether it opens, once, for this; told when the event has been shown for a while."""
        before = await self.count()
        await self.send(body)
        await self.shows(id=body["id"])
        await asyncio.sleep(0.5)
        opened = await self.count() - before
        assert opened in (0, 1)
        return opened == 1

    async def count(self) -> int:
        return int(await asyncio.to_thread(self._home.state, COUNT) or -1)


def payload(name: str | None = "Katya", after_s: float = 0.0, **changes: Any) -> dict[str, Any]:
    """Valid for minutes, so that only what else is wrong with it keeps it from opening."""
    now = time.time()
    return event(name, timestamp=now + after_s, expires_at=now + 600).payload() | changes


async def test_the_blueprint_unlocks_once_for_each_live_pass(
    tmp_path: Path, broker: Broker, home: HomeAssistant
) -> None:
    door = Door(home, broker)
    async with gate(tmp_path, broker.options()):
        await door.shows(state="unknown")
        once = payload()
        assert await door.opens(once)
        assert not await door.opens(once)
        assert await door.opens(payload("Ivan"))
        assert not await door.opens(once)
        assert not await door.opens(payload(expires_at=time.time() - 0.1))
        assert not await door.opens(payload("Eve")), "she is not among the people of this lock"
        assert not await door.opens(payload(None))
        assert not await door.opens(payload(clock="unsynced"))
        assert not await door.opens(payload(demo=True))
        assert not await door.opens(payload(type="face_event.history"))
        last = payload(after_s=100)  # from here on also younger than what has opened, and still nothing opens twice
        assert await door.opens(last)
    await door.shows(state="unavailable")
    opened = await door.count()
    async with gate(tmp_path, broker.options()):
        await door.shows(id=last["id"])
        await asyncio.sleep(0.5)
        assert await door.count() == opened, "an event that is shown again opened"
        for old, new in ((VISITOR, f"{VISITOR}_2"), (f"{VISITOR}_2", VISITOR)):
            await asyncio.to_thread(home.rename, old, new)
            await asyncio.sleep(1)
        await door.shows(id=last["id"])
        assert await door.count() == opened, "an event that is shown under a new name opened"
        await asyncio.to_thread(home.stop)
        await door.send(payload(after_s=200), retain=True)
        await asyncio.to_thread(home.start)
        await door.shows(id=last["id"])
        await asyncio.sleep(1)
        assert await door.count() == opened, "an event from before the restart opened"
        assert await door.opens(payload(after_s=200))
    assert home.complaints() == []
