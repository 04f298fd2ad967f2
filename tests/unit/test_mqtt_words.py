"""Connection errors in plain words. Those that a real broker can be made to give are in integration/test_mqtt.py."""

from __future__ import annotations

import aiomqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from edge_face.sinks.mqtt_link import in_words


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
