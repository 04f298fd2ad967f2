"""One connection to the broker, from its beginning to its end; a new one is a new object with nothing left over."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from typing import Any

import aiomqtt
import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge_face.settings import Mqtt

KEEPALIVE_S = 15
CONNACK_S = 5.0
INCOMING = 100
"""Messages that may wait to be read; more are discarded."""

_SOCKET_OPTIONS = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    # Closing forgets what was not sent yet. Otherwise the kernel would go on trying for minutes, and an event that
    # expired while the network was away would reach the broker after all.
    (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)),
)
_TAKEN_OVER = 142
"""MQTT 5, 3.14.2.1: another connection came with the same client id. (Not every broker says so.)"""
_UNSPECIFIED = 128
_FAILED = 128
"""From here on a SUBACK's codes are refusals (MQTT 5, 3.9.3; 3.1.1, 3.9.3)."""
_CLOSED_EARLY = "closed before the answer"


class LinkLost(Exception):
    """There is no connection (any more); the text says why, in plain words."""


class PublishRefused(Exception):
    """The broker has the message and does not take it."""


class Link(aiomqtt.Client):
    """A client that connects once. Unlike its parent it hears of a loss while it waits for an acknowledgement, reads
    that acknowledgement's reason code, and can be dropped at once, with all that paho and the kernel still hold.
    """

    def __init__(self, config: Mqtt, client_id: str, will: tuple[str, bytes] | None = None) -> None:
        port = config.port or (8883 if config.tls else 1883)
        self.where = f"broker {config.host}:{port}"
        self.is_open = False
        self._version_5 = config.version == "5"
        self._acks: dict[int, asyncio.Future[ReasonCode]] = {}
        clean: dict[str, Any] = {"clean_start": True} if config.version == "5" else {"clean_session": True}
        super().__init__(
            config.host,
            port,
            username=config.username or None,
            password=config.password or None,
            identifier=client_id,
            protocol=aiomqtt.ProtocolVersion.V5 if config.version == "5" else aiomqtt.ProtocolVersion.V311,
            will=aiomqtt.Will(*will, qos=1, retain=True) if will else None,
            timeout=CONNACK_S,
            keepalive=KEEPALIVE_S,
            max_queued_incoming_messages=INCOMING,
            # Read anew for each connection, in aiomqtt's thread, so that a renewed certificate is used.
            tls_params=_tls(config) if config.tls else None,
            socket_options=_SOCKET_OPTIONS,
            **clean,
        )

    @property
    def lost(self) -> asyncio.Future[None]:
        """Done when the connection has ended; to be asked for after `open`."""
        return self._disconnected

    async def open(self) -> None:
        """Connect; at most about ten seconds. Raises LinkLost."""
        opening = asyncio.ensure_future(self.__aenter__())
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The connecting runs in a thread that cannot be stopped. What it brings is dropped.
            opening.add_done_callback(self._drop_late)
            raise
        except (aiomqtt.MqttError, ValueError) as error:  # ValueError: a host name that cannot be one
            raise LinkLost(in_words(self.where, error)) from error
        self.is_open = True

    async def send(
        self, topic: str, payload: bytes, limit_s: float, *, retain: bool = False, expiry_s: int | None = None
    ) -> None:
        """Publish with QoS 1 and wait for the acknowledgement. Raises LinkLost or PublishRefused.

        Without an acknowledgement in `limit_s` the connection is dropped: that is the only way to call a message back.
        """
        properties = None
        if expiry_s is not None:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho leaves it untyped
            properties.MessageExpiryInterval = expiry_s
        sent = self._publish(topic, payload, 1, retain, properties)
        ack = self._acks[sent.mid] = asyncio.get_running_loop().create_future()
        try:
            await asyncio.wait((ack, self._disconnected), timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._acks.pop(sent.mid, None)
        if not ack.done():
            self.check()
            self.abort()
            raise LinkLost(f"the {self.where} did not acknowledge in time")
        if ack.result().is_failure:
            raise PublishRefused(f"the {self.where} does not take {topic}: {ack.result()}")

    def post(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish with QoS 0: nobody learns whether it arrived. Raises LinkLost."""
        self._publish(topic, payload, 0, retain, None)

    def _publish(
        self, topic: str, payload: bytes, qos: int, retain: bool, properties: Properties | None
    ) -> paho.MQTTMessageInfo:
        self.check()
        sent = self._client.publish(topic, payload, qos=qos, retain=retain, properties=properties)
        if sent.rc != paho.MQTT_ERR_SUCCESS:
            self.abort()
            raise LinkLost(f"the {self.where} cannot be written to: {paho.error_string(sent.rc)}")
        return sent

    async def listen_to(self, topic: str, *, keep_retained: bool = False) -> bool:
        """Subscribe; whether the broker allows it. Raises LinkLost.

        `keep_retained`: `retain` is also set on a message that is published so while this listens, not only on what
        the broker had. MQTT 3.1.1 cannot do that.
        """
        options = SubscribeOptions(qos=1, retainAsPublished=keep_retained) if self._version_5 else None
        # In a task of its own: `asyncio.wait_for`, by which aiomqtt waits, loses a cancellation in Python 3.11 when the
        # answer comes at the same moment, and a daemon that is to end would never.
        asking = asyncio.ensure_future(self.subscribe(topic, qos=0 if options else 1, options=options))
        try:
            await asyncio.wait((asking,))
            granted = asking.result()
        except aiomqtt.MqttError as error:
            raise LinkLost(in_words(self.where, error)) from error
        finally:
            asking.cancel()
        return all(getattr(code, "value", code) < _FAILED for code in granted)

    def check(self) -> None:
        """Raises LinkLost when the connection has ended."""
        if self._disconnected.done():
            raise LinkLost(in_words(self.where, self._disconnected.exception()))

    async def close(self) -> None:
        """Leave in order: the broker does not send the will. Raises LinkLost."""
        try:
            await self.__aexit__(None, None, None)
        except aiomqtt.MqttError as error:
            raise LinkLost(in_words(self.where, error)) from error

    def abort(self) -> None:
        """Drop the connection now. What was not sent yet never will be."""
        self._client._sock_close()
        if not self._disconnected.done():
            self._disconnected.set_result(None)
        else:
            self._disconnected.exception()  # seen; asyncio need not complain
        self.is_open = False

    def _drop_late(self, opening: asyncio.Future[Any]) -> None:
        if not opening.cancelled():
            opening.exception()
        self.abort()

    def _on_publish(
        self, client: paho.Client, userdata: Any, mid: int, reason_code: ReasonCode, properties: Properties
    ) -> None:
        ack = self._acks.get(mid)
        if ack is not None and not ack.done():
            ack.set_result(reason_code)
        super()._on_publish(client, userdata, mid, reason_code, properties)

    def _on_disconnect(
        self,
        client: paho.Client,
        userdata: Any,
        flags: paho.DisconnectFlags,
        reason_code: ReasonCode,
        properties: Properties | None = None,
    ) -> None:
        if not self._connected.done():
            # The parent would wait on for an answer that cannot come any more.
            self._connected.set_exception(aiomqtt.MqttError(_CLOSED_EARLY))
        super()._on_disconnect(client, userdata, flags, reason_code, properties)


def in_words(where: str, error: BaseException | None) -> str:
    """What a person at the gate can do about it."""
    if isinstance(error, aiomqtt.exceptions.MqttConnectError):
        return f"the {where} refused the connection ({error.rc}): check [mqtt] username and password"
    if isinstance(error, aiomqtt.MqttCodeError):
        code = error.rc.value if isinstance(error.rc, ReasonCode) else _UNSPECIFIED
        if code == _TAKEN_OVER:
            return f"the {where} has another client with this node's id: [node] id must differ for each gate"
        return f"the connection to the {where} was lost{'' if code == _UNSPECIFIED else f' ({error.rc})'}"
    text = str(error) if error else ""
    if "CERTIFICATE_VERIFY_FAILED" in text:
        reason = re.sub(r".*certificate verify failed: |\s*\(_ssl\.c:\d+\)", "", text)
        return f"the certificate of the {where} is not accepted ({reason}): check [mqtt] host and ca"
    if "SSL" in text:
        return f"no TLS with the {where} ({text}): check [mqtt] port, tls, cert and key"
    if "timed out" in text:
        return f"the {where} does not answer"
    if text == _CLOSED_EARLY:
        return f"the {where} closed the connection at once: check [mqtt] port, tls, cert and key"
    if text:
        return f"the {where} cannot be reached ({re.sub(r'^.Errno -?[0-9]+. ', '', text)})"
    return f"the connection to the {where} was lost"


def _tls(config: Mqtt) -> aiomqtt.TLSParameters:
    """Certificate and host name are always checked; without `ca` against the system's authorities."""
    return aiomqtt.TLSParameters(ca_certs=config.ca or None, certfile=config.cert or None, keyfile=config.key or None)
