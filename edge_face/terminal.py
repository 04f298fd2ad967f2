"""What a person who started the daemon in a terminal sees. Without one the same goes to the log, but no token."""

from __future__ import annotations

import logging
import sys
from datetime import datetime
from typing import TextIO

from edge_face.events import Event

_log = logging.getLogger("edge_face.events")

_GREEN, _YELLOW, _BOLD, _PLAIN = "\033[32m", "\033[33m", "\033[1m", "\033[0m"


class Terminal:
    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._shown = self._out.isatty()

    def welcome(
        self, *, url: str, token: str, token_file: str, topic: str, broker: str, cameras: dict[str, str]
    ) -> None:
        """Where everything is. `broker` is empty without MQTT."""
        lines = [f"camera {camera}: {source}" for camera, source in cameras.items()]
        lines.append(f"API:    {url}")
        if self._shown:
            lines.append(f"token:  {token}   (also in {token_file})")
        where = f"{topic} on {broker}" if broker else f"shown here; with [mqtt] host set, published on {topic}"
        lines.append(f"events: {where}")
        for line in lines:
            self._say(line)
        if self._shown:
            self._say("Ctrl-C ends it.")

    def event(self, event: Event) -> None:
        """One line an event."""
        who = event.name or event.reason
        if event.name and event.status == "REJECT":
            who += f" ({event.reason})"
        distance = "" if event.distance is None else f"  distance {event.distance:.2f}"
        line = f"{event.status:<6}  {who}{distance}  camera {event.camera}  {event.latency_ms:.0f} ms  #{event.seq}"
        if self._shown:
            color = _GREEN if event.status == "PASS" else _YELLOW
            at = datetime.fromtimestamp(event.timestamp).astimezone().strftime("%H:%M:%S")
            self._say(f"{at}  {_BOLD}{color}{line}{_PLAIN}")
        else:
            fields = {
                "CAMERA": event.camera, "STATUS": event.status, "REASON": event.reason, "EVENT": event.id,
                "PERSON": event.person_id,
            }  # fmt: skip
            _log.info(line, extra=fields)

    def note(self, line: str) -> None:
        self._say(line)

    def _say(self, line: str) -> None:
        if self._shown:
            print(line, file=self._out, flush=True)
        else:
            _log.info(line)
