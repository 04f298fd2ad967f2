"""The Node-RED flow of the documents, in a real Node-RED. Run by `scripts/test --integrations`."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from tests.support.broker import Broker, Watcher, until, watching
from tests.support.node_red import PROGRAM, NodeRed
from tests.support.publishing import event

pytestmark = [
    pytest.mark.integrations,
    pytest.mark.skipif(not PROGRAM.exists(), reason="Node-RED is installed by scripts/test --integrations"),
]

TOPIC = "edge-face/gate-1/front/event"
LATER = 60.0


def payload(name: str | None = "Katya", **changes: Any) -> dict[str, Any]:
    """An event that is valid for so long that no slow machine lets it expire."""
    now = time.time()
    return event(name, timestamp=now + LATER, expires_at=now + 2 * LATER).payload() | changes


async def send(broker: Broker, body: Any, *, retain: bool = False) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with aiomqtt.Client("127.0.0.1", broker.port) as client:
        await client.publish(TOPIC, raw, qos=1, retain=retain)


def opened(watcher: Watcher) -> int:
    texts = watcher.texts("gate/relay/set")
    assert set(texts) <= {"ON"}
    return len(texts)


async def opens(broker: Broker, watcher: Watcher, body: Any, expected: int, *, retain: bool = False) -> None:
    """Whether this opens, as it stands when an event that was sent after it has opened."""
    before = opened(watcher)
    await send(broker, body, retain=retain)
    await send(broker, payload())
    await until(lambda: opened(watcher) > before + expected, 20)
    await asyncio.sleep(0.05)
    assert opened(watcher) == before + expected + 1, body


async def subscribed(broker: Broker, watcher: Watcher) -> None:
    """Sends events until one opens."""
    deadline = time.monotonic() + 20
    while not opened(watcher):
        assert time.monotonic() < deadline, "nothing opens"
        await send(broker, payload())
        await asyncio.sleep(1)


async def test_the_flow_opens_once_for_each_live_pass(broker: Broker, tmp_path: Path) -> None:
    await send(broker, payload(), retain=True)
    with NodeRed(tmp_path, broker.port) as node_red:
        async with watching(broker, "gate/#") as watcher:
            await asyncio.sleep(1)
            assert opened(watcher) == 0, "what the broker had kept opened"
            await subscribed(broker, watcher)
            once = payload()
            for body, expected in [
                (payload(), 1),
                (once, 1),
                (once, 0),
                (payload(), 1),
                (once, 0),
                (payload(expires_at=time.time() - 0.1), 0),
                (payload(timestamp=time.time() - LATER), 0),  # from before the start, and still valid
                (payload(None), 0),
                (payload(type="face_event.history"), 0),
                (payload(clock="unsynced"), 0),
                (payload(demo=True), 0),
                (payload(id=""), 0),
                ({"type": "face_event", "status": "PASS"}, 0),
                (None, 0),
                (b"[", 0),
                (b"", 0),
            ]:
                await opens(broker, watcher, body, expected)
            await opens(broker, watcher, payload(), 0, retain=True)
        broker.stop()
        broker.start()
        await until(lambda: node_red.log.count("Connected to broker") == 2, 20)
        async with watching(broker, "gate/#") as watcher:
            await subscribed(broker, watcher)
