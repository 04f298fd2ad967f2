"""An MQTT sink at work, without a daemon around it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from edge_face.publish import Publisher
from edge_face.settings import Camera, Config, HomeAssistant, Mqtt, Node
from edge_face.sinks.mqtt import MqttSink
from tests.support.api import STATUS
from tests.support.broker import until
from tests.support.publishing import CLOCK, AskedCameras, publishing

ANNOUNCED = HomeAssistant()


def statistics(temperature_c: float | None = 51.5) -> dict[str, Any]:
    """The daemon's status, as far as MQTT asks for it."""
    cameras = [
        {**STATUS["cameras"][0], "fps": 9.5},
        {**STATUS["cameras"][0], "id": "Кухня", "fps": 0, "latency_ms": None},
    ]
    return {**STATUS, "board": {**STATUS["board"], "temperature_c": temperature_c}, "cameras": cameras}


@asynccontextmanager
async def gate(
    path: Path,
    options: Mqtt,
    *,
    connected: bool = True,
    retry_s: float = 0.2,
    cameras: AskedCameras | None = None,
    ids: tuple[str, ...] = ("front",),
    homeassistant: HomeAssistant = ANNOUNCED,
    status: Callable[[], Mapping[str, Any]] = statistics,
    on_reload: Callable[[str], None] = lambda _by: None,
) -> AsyncIterator[tuple[MqttSink, Publisher]]:
    config = Config(
        node=Node("gate-1"), mqtt=options, cameras={id: Camera() for id in ids}, homeassistant=homeassistant
    )
    sink = MqttSink(config, cameras or AskedCameras(), status, CLOCK, on_reload=on_reload, retry_s=retry_s)
    async with publishing(path / "edge-face.db", sink) as publisher:
        if connected:
            await until(lambda: sink.healthy)
        yield sink, publisher
