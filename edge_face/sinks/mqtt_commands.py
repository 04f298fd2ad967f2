"""What may be asked of a node by MQTT. None of it opens, enrols or unblocks; what the broker kept does not count."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import aiomqtt

from edge_face.sinks.mqtt_link import Link
from edge_face.sinks.mqtt_messages import Topics
from edge_face.slugs import slug

_log = logging.getLogger(__name__)

_SWITCH = {"ON": True, "OFF": False}

OnPause = Callable[[bool, Sequence[str]], None]
OnSnapshot = Callable[[Sequence[str]], None]
OnReload = Callable[[str], None]


class Commands:
    """`<base>/cmd/pause` with `ON` or `OFF`: recognition of all cameras off or on; `<base>/<camera>/cmd/pause` of one.

    `<base>/cmd/snapshot`, with a camera or empty: their newest picture is asked for. `<base>/cmd/reload`: the
    configuration is read anew.
    """

    def __init__(
        self, topics: Topics, cameras: Sequence[str], on_pause: OnPause, on_snapshot: OnSnapshot, on_reload: OnReload
    ) -> None:
        self._base = topics.base
        self._cameras = {slug(camera): camera for camera in cameras}
        self._on_pause = on_pause
        self._on_snapshot = on_snapshot
        self._on_reload = on_reload

    async def subscribe(self, link: Link) -> None:
        """Raises LinkLost."""
        for topic in (f"{self._base}/cmd/+", f"{self._base}/+/cmd/+"):
            # So that a message that is kept is known as such, also when it comes while this is listening.
            if not await link.listen_to(topic, keep_retained=True):
                _log.error("the %s does not let this node listen to %s", link.where, topic)

    def take(self, message: aiomqtt.Message) -> None:
        topic = str(message.topic)
        place, _, command = topic.removeprefix(f"{self._base}/").rpartition("/")
        topic = repr(topic)[1:-1]  # for the log: some brokers let line ends pass
        if message.retain:
            _log.warning("the retained command on %s is ignored: it may be from any time", topic)
            return
        text = bytes(message.payload).decode("utf-8", "replace").strip()
        level = place.removesuffix("cmd").rstrip("/")
        if level and level not in self._cameras:
            _log.warning("%s: there is no such camera", topic)
        elif command == "pause":
            self._pause(topic, text, [self._cameras[level]] if level else list(self._cameras.values()))
        elif command == "snapshot" and not level:
            self._snapshot(topic, text)
        elif command == "reload" and not level:
            self._on_reload("MQTT")
        else:
            _log.warning("there is no command %r", command[:40])

    def _pause(self, topic: str, text: str, cameras: Sequence[str]) -> None:
        wanted = _SWITCH.get(text.upper())
        if wanted is None:
            _log.warning("%s takes ON or OFF, not %r", topic, text[:40])
        else:
            self._on_pause(wanted, cameras)

    def _snapshot(self, topic: str, text: str) -> None:
        found = [camera for level, camera in self._cameras.items() if text in ("", camera, level)]
        if found:
            self._on_snapshot(found)
        else:
            _log.warning("%s: there is no camera %r", topic, text[:40])
