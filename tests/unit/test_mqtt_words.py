"""Connection errors in plain words. Those that a real broker can be made to give are in integration/test_mqtt.py."""

from __future__ import annotations

import aiomqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from edge_face.sinks.mqtt_commands import Commands
from edge_face.sinks.mqtt_link import in_words
from edge_face.sinks.mqtt_messages import Topics


def code(number: int) -> aiomqtt.MqttCodeError:
    return aiomqtt.MqttCodeError(ReasonCode(PacketTypes.DISCONNECT, identifier=number), "Unexpected disconnection")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (code(142), "the broker b:1 has another client with this node's id: [node] id must differ for each gate"),
        (code(139), "the connection to the broker b:1 was lost (Server shutting down)"),
        (code(128), "the connection to the broker b:1 was lost"),
        (None, "the connection to the broker b:1 was lost"),
        (aiomqtt.MqttError("timed out"), "the broker b:1 does not answer"),
        (aiomqtt.MqttError("Operation timed out"), "the broker b:1 does not answer"),
        (aiomqtt.MqttError("[Errno -2] Name not known"), "the broker b:1 cannot be reached (Name not known)"),
        (aiomqtt.MqttError("[SSL] x"), "no TLS with the broker b:1 ([SSL] x): check [mqtt] port, tls, cert and key"),
    ],
)
def test_words(error: BaseException | None, words: str) -> None:
    assert in_words("broker b:1", error) == words


def test_a_topic_makes_no_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Mosquitto lets no line end pass; other brokers may."""
    commands = Commands(Topics("gate-1"), ("front",), lambda *_: None, lambda *_: None, lambda _by: None)
    for retain in (False, True):
        commands.take(aiomqtt.Message("edge-face/gate-1/x\nWARNING\x1b[2J/cmd/pause", b"ON", 0, retain, 1, None))
    assert len(caplog.messages) == 2
    assert all(message.isprintable() for message in caplog.messages), caplog.messages
