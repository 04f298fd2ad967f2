"""The sinks that a configuration asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edge_face.clock import Clock
from edge_face.publish import Sink
from edge_face.queries import zone_of
from edge_face.settings import Config
from edge_face.sinks.csv import AttendanceFile, CsvSink
from edge_face.sinks.mqtt import MqttSink
from edge_face.sinks.webhook import WebhookSink


def build(config: Config, clock: Clock, on_pause: Callable[[bool], None]) -> list[Sink]:
    """What is not configured is simply not there. `on_pause`: called when a pause is asked for by MQTT."""
    sinks: list[Sink] = []
    if config.mqtt.host:
        sinks.append(MqttSink(config.mqtt, config.node.id, tuple(config.cameras), clock, on_pause=on_pause))
    sinks += [WebhookSink(id, hook, clock) for id, hook in config.webhooks.items()]
    if file := attendance_file(config):
        sinks.append(CsvSink(file, unknown=config.attendance.unknown))
    return sinks


def attendance_file(config: Config) -> AttendanceFile | None:
    attendance = config.attendance
    return AttendanceFile(Path(attendance.csv), zone_of(attendance.timezone)) if attendance.csv else None
