"""Home Assistant's MQTT device discovery: one retained message from which it makes a device with all its entities.

https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import aiomqtt

from edge_face import __version__
from edge_face.settings import HomeAssistant
from edge_face.sinks.mqtt_link import Link
from edge_face.sinks.mqtt_messages import Topics, as_json
from edge_face.slugs import slug

_log = logging.getLogger(__name__)

_EVENT = (
    "{{ dict(value_json, event_type='granted' if value_json.status == 'PASS' "
    "else 'unknown' if value_json.reason == 'unknown' else 'denied') | to_json }}"
)
# Only from live events, and so unknown after a restart of Home Assistant: a name that came back by itself would set off
# whatever waits for it. Only of whom was let in, for the same reason. A state has at most 255 characters.
_LAST_PERSON = "{{ value_json.name[:255] if value_json.status == 'PASS' else this.state }}"
_PLATFORMS = frozenset({"event", "binary_sensor", "sensor", "switch", "image"})
_LONGEST = 1024 * 1024
"""Bytes; a message for a hundred cameras has 300,000. A longer one is not ours, and would hold up decisions."""


def device(topics: Topics, node: str, cameras: Sequence[str], *, snapshots: bool, temperature: bool) -> dict[str, Any]:
    """The message. `temperature`: whether the board has a sensor. Ids are made of topic levels and never change."""
    parts: dict[str, dict[str, Any]] = {}
    for camera in cameras:
        level = slug(camera)
        for kind, part in _camera(topics, camera, snapshots=snapshots).items():
            parts[f"{level}_{kind}"] = _named(part, f"{topics.base}/{level}/{kind}", f"{camera} {part['name']}")
    if temperature:
        part = _diagnostic(topics, "Temperature", "temperature", device_class="temperature", unit_of_measurement="°C")
        parts["temperature"] = _named(part, f"{topics.base}/temperature", part["name"])
    return {
        "dev": {"ids": [topics.client_id], "name": node, "mf": "edge-face", "mdl": "edge-face", "sw": __version__},
        "o": {"name": "edge-face", "sw": __version__},
        "avty_t": topics.status,
        "qos": 1,
        "cmps": parts,
    }


def _camera(topics: Topics, camera: str, *, snapshots: bool) -> dict[str, dict[str, Any]]:
    def topic(leaf: str) -> str:
        return topics.of(camera, leaf)

    # A message kept from before the camera was configured does not know it.
    numbers = f"cameras.get('{slug(camera)}', {{}})"
    found: dict[str, dict[str, Any]] = {
        "event": {
            "p": "event",
            "name": "visitor",
            "icon": "mdi:face-recognition",
            "state_topic": topic("event"),
            "event_types": ["granted", "denied", "unknown"],
            "value_template": _EVENT,
        },
        "presence": {
            "p": "binary_sensor",
            "name": "presence",
            "device_class": "occupancy",
            "state_topic": topic("presence"),
            "value_template": "{{ 'ON' if value_json.present else 'OFF' }}",
            "json_attributes_topic": topic("presence"),
        },
        "person": {
            "p": "sensor",
            "name": "last person",
            "icon": "mdi:account",
            "state_topic": topic("event"),
            "value_template": _LAST_PERSON,
        },
        "problem": {
            "p": "binary_sensor",
            "name": "problem",
            "device_class": "problem",
            "entity_category": "diagnostic",
            "state_topic": topic("camera"),
            "payload_on": "lost",
            "payload_off": "ok",
        },
        "fps": _diagnostic(topics, "frame rate", f"{numbers}.get('fps')", unit_of_measurement="fps"),
        "latency": _diagnostic(
            topics, "latency", f"{numbers}.get('latency_ms')", device_class="duration", unit_of_measurement="ms"
        ),
        "pause": {
            "p": "switch",
            "name": "pause",
            "icon": "mdi:pause",
            "state_topic": topic("paused"),
            "command_topic": topic("cmd/pause"),
        },
    }
    if snapshots:
        found["snapshot"] = {
            "p": "image",
            "name": "snapshot",
            "image_topic": topic("snapshot"),
            "content_type": "image/jpeg",
        }
    return found


def _diagnostic(topics: Topics, name: str, value: str, **more: str) -> dict[str, Any]:
    return {
        "p": "sensor",
        "name": name,
        "entity_category": "diagnostic",
        "state_class": "measurement",
        "state_topic": topics.stats,
        "value_template": f"{{{{ value_json.{value} }}}}",
        **more,
    }


def _named(part: Mapping[str, Any], id: str, name: str) -> dict[str, Any]:
    """With a name for people, and ids that also a node or camera without any Latin letter has."""
    readable = id.removeprefix("edge-face/").replace("/", "_").replace("-", "_")
    # The first is what Home Assistant asks for from 2025.10 on, the second what it did before.
    entity = {"default_entity_id": f"{part['p']}.{readable}", "object_id": readable}
    return {**part, "name": name, "unique_id": id, **entity}


class Discovery:
    """What is announced, and when again."""

    def __init__(
        self,
        options: HomeAssistant,
        topics: Topics,
        announce: Callable[[str, bytes], None],
        again: Callable[[], None],
        message: Callable[[], Mapping[str, Any]],
    ) -> None:
        """`announce` gets the topic and what is to be kept there; `again`: Home Assistant has begun anew and is to be
        told everything; `message` makes the message.
        """
        self._on = options.discovery
        self._topic = f"{options.prefix}/device/{topics.client_id}/config"
        self._birth = f"{options.prefix}/status"
        self._announce = announce
        self._again = again
        self._message = message

    async def begin(self, link: Link) -> None:
        """On a new connection, before anything is sent that was announced. Raises LinkLost."""
        if self._on:
            self._announce(self._topic, as_json(self._message()))
        # Hears what an earlier run has left there; what is sent from now on comes without `retain`.
        heard = await link.listen_to(self._topic)
        if self._on and not (await link.listen_to(self._birth) and heard):
            _log.warning("the %s does not let this node hear of Home Assistant", link.where)

    def take(self, message: aiomqtt.Message) -> bool:
        """Whether the message is for this."""
        topic, payload = str(message.topic), bytes(message.payload)
        if topic == self._birth:
            if payload == b"online":
                self._again()
        elif topic == self._topic:
            if message.retain and payload:
                self._found(payload)
        else:
            return False
        return True

    def _found(self, earlier: bytes) -> None:
        """Home Assistant keeps an entity until it is told to remove it: it has to hear of those that are gone."""
        if not self._on:
            _log.info("Home Assistant is told to forget this node, as [homeassistant] discovery is off")
            self._announce(self._topic, b"")
            return
        message = dict(self._message())
        if gone := _parts(earlier, without=message["cmps"]):
            message["cmps"] = {**message["cmps"], **gone}
            self._announce(self._topic, as_json(message))


def _parts(earlier: bytes, *, without: Mapping[str, Any]) -> dict[str, Any]:
    """How each entity of that message that is not in the new one is removed: by naming its platform alone."""
    if len(earlier) > _LONGEST:
        return {}
    try:
        parts = json.loads(earlier)["cmps"]
        # Ours are ASCII; of others, say half a surrogate pair, no message could be made.
        found = {key: part["p"] for key, part in parts.items() if key not in without and key.isascii()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):  # anybody may have written it
        return {}
    return {key: {"p": name} for key, name in found.items() if isinstance(name, str) and name in _PLATFORMS}
