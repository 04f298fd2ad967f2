"""The sinks that a configuration asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edge_face.clock import Clock
from edge_face.publish import Sink
from edge_face.queries import zone_of
from edge_face.settings import Config
from edge_face.sinks.csv import AttendanceFile, CsvSink
from edge_face.sinks.mqtt import Cameras, MqttSink
from edge_face.sinks.webhook import WebhookSink


def build(
    config: Config,
    clock: Clock,
    cameras: Cameras,
    status: Callable[[], Mapping[str, Any]],
    on_reload: Callable[[str], None],
) -> list[Sink]:
    """What is not configured is simply not there. `cameras`, `status`, `on_reload`: what sinks may ask."""
    sinks: list[Sink] = []
    if config.mqtt.host:
        sinks.append(MqttSink(config, cameras, status, clock, on_reload=on_reload))
    sinks += [WebhookSink(id, hook, clock, cameras) for id, hook in config.webhooks.items()]
    if file := attendance_file(config):
        sinks.append(CsvSink(file, unknown=config.attendance.unknown))
    return sinks


def unchanged(old: Config, new: Config) -> set[str]:
    """Names of the sinks that nothing of the difference concerns."""
    before, after = _settings(old), _settings(new)
    return {name for name, used in after.items() if before.get(name) == used}


def _settings(config: Config) -> dict[str, object]:
    """All that each sink depends on, by its name."""
    return {
        MqttSink.name: (config.node, config.mqtt, config.homeassistant, tuple(config.cameras)),
        CsvSink.name: config.attendance,
        **{f"webhook:{id}": hook for id, hook in config.webhooks.items()},
    }


def attendance_file(config: Config) -> AttendanceFile | None:
    attendance = config.attendance
    return AttendanceFile(Path(attendance.csv), zone_of(attendance.timezone)) if attendance.csv else None
