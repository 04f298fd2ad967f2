"""What may be asked of a node by MQTT. None of it opens, enrols or unblocks; what the broker kept does not count."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress

import aiomqtt
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge_face.sinks.mqtt_link import Link, LinkLost, in_words

_log = logging.getLogger(__name__)

_FAILED = 128
"""From here on a SUBACK's codes are refusals (MQTT 5, 3.9.3; 3.1.1, 3.9.3)."""
_SWITCH = {"ON": True, "OFF": False}


class Commands:
    """`<base>/cmd/pause` with `ON` or `OFF`: recognition of all cameras off or on."""

    def __init__(self, base: str, on_pause: Callable[[bool], None]) -> None:
        self._base = f"{base}/cmd/"
        self._on_pause = on_pause

    async def subscribe(self, link: Link, *, version_5: bool) -> None:
        """Raises LinkLost."""
        # So that a message that is kept is known as such, also when it comes while this is listening.
        options = SubscribeOptions(qos=1, retainAsPublished=True) if version_5 else None
        try:
            granted = await link.subscribe(f"{self._base}+", qos=0 if options else 1, options=options)
        except aiomqtt.MqttError as error:
            raise LinkLost(in_words(link.where, error)) from error
        if any(getattr(code, "value", code) >= _FAILED for code in granted):
            _log.error("the %s does not let this node listen to %s+", link.where, self._base)

    async def listen(self, link: Link) -> None:
        """Until the connection ends. To be run beside whatever publishes, which hears of the end as well."""
        with suppress(aiomqtt.MqttError):
            async for message in link.messages:
                self.take(message)

    def take(self, message: aiomqtt.Message) -> None:
        topic = str(message.topic)
        command = topic.removeprefix(self._base)
        if message.retain:
            _log.warning("the retained command on %s is ignored: it may be from any time", topic)
            return
        text = bytes(message.payload).decode("ascii", "replace")
        wanted = _SWITCH.get(text.strip().upper())
        if command != "pause":
            _log.warning("there is no command %r", command[:40])
        elif wanted is None:
            _log.warning("%s takes ON or OFF, not %r", topic, text[:40])
        else:
            self._on_pause(wanted)
