"""The sinks that a configuration asks for."""

from __future__ import annotations

from pathlib import Path

from edge_face.clock import Clock
from edge_face.publish import Sink
from edge_face.settings import Config
from edge_face.sinks.csv import CsvSink
from edge_face.sinks.mqtt import MqttSink
from edge_face.sinks.webhook import WebhookSink


def build(config: Config, clock: Clock) -> list[Sink]:
    """What is not configured is simply not there."""
    sinks: list[Sink] = []
    if config.mqtt.host:
        sinks.append(MqttSink(config.mqtt, config.node.id, tuple(config.cameras), clock))
    sinks += [WebhookSink(id, hook, clock) for id, hook in config.webhooks.items()]
    if config.attendance.csv:
        sinks.append(CsvSink(Path(config.attendance.csv), unknown=config.attendance.unknown))
    return sinks
