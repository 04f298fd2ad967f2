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


def build(config: Config, clock: Clock, cameras: Cameras, status: Callable[[], Mapping[str, Any]]) -> list[Sink]:
    """What is not configured is simply not there. `cameras` and `status`: what sinks may ask."""
    sinks: list[Sink] = []
    if config.mqtt.host:
        sinks.append(MqttSink(config, cameras, status, clock))
    sinks += [WebhookSink(id, hook, clock, cameras) for id, hook in config.webhooks.items()]
    if file := attendance_file(config):
        sinks.append(CsvSink(file, unknown=config.attendance.unknown))
    return sinks


def attendance_file(config: Config) -> AttendanceFile | None:
    attendance = config.attendance
    return AttendanceFile(Path(attendance.csv), zone_of(attendance.timezone)) if attendance.csv else None
