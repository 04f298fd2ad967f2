"""What systemd is told (sd_notify) and where the log goes under it (the journal, with fields), by systemd-python.

systemd-python is compiled and so only in the service's environment. Elsewhere there is no unit to speak to.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

_log = logging.getLogger(__name__)

READY_S = 20.0
"""After this time the service is ready without the cameras that still give nothing; `STATUS=` says which."""
LOOK_S = 0.5
FIELDS = ("CAMERA", "STATUS", "REASON", "PERSON", "EVENT")
"""Of a journal entry, where a record has them (`extra=`). PERSON is an id: a name may change, and is in the message."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """How the cameras are at one moment."""

    loaded: bool
    """The models passed their self-test in at least one camera's process."""
    delivered: bool
    """Every camera gave pictures."""
    alive: bool
    """Frames are judged, or a reconnection is tried, by every camera."""
    summary: str


class Service:
    """The unit around this process. Nothing here waits or raises: a gate works without systemd, too."""

    def __init__(self, notify: Callable[[str], object], environ: Mapping[str, str]) -> None:
        self._notify = notify
        watchdog_s = int(environ.get("WATCHDOG_USEC", "0")) / 1e6
        mine = environ.get("WATCHDOG_PID") in (None, str(os.getpid()))
        self._watchdog_s = watchdog_s if mine else 0.0
        self._ready = False
        self._said = ""

    async def run(self, look: Callable[[], Pulse]) -> None:
        """For ever; from when the API listens."""
        began, alive_at = time.monotonic(), float("-inf")
        while True:
            pulse, now = look(), time.monotonic()
            self._say(pulse.summary)
            if not self._ready and pulse.loaded and (pulse.delivered or now - began > READY_S):
                self._ready = True
                self._notify("READY=1")
            if self._watchdog_s and pulse.alive and now - alive_at >= self._watchdog_s / 4:
                alive_at = now
                self._notify("WATCHDOG=1")
            await asyncio.sleep(LOOK_S)

    def reloading(self, busy: bool) -> None:
        if not self._ready:
            return
        self._notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}" if busy else "READY=1")

    def stopping(self) -> None:
        self._notify("STOPPING=1\nSTATUS=stopping")

    def _say(self, summary: str) -> None:
        if summary != self._said:
            self._said = summary
            self._notify(f"STATUS={summary}")


def find(environ: Mapping[str, str] | None = None) -> Service | None:
    """None where no service manager listens, or cannot be spoken to; the second is said in the log."""
    environ = os.environ if environ is None else environ
    if not environ.get("NOTIFY_SOCKET"):
        return None
    try:
        daemon = import_module("systemd.daemon")
    except ImportError:
        _log.error("a service manager waits for news (NOTIFY_SOCKET), but systemd-python is not installed")
        return None
    return Service(daemon.notify, environ)


class _JournalHandler(logging.Handler):
    """One entry a record, with the fields of FIELDS that it has."""

    def __init__(self, send: Callable[..., Any]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        priority = next((p for level, p in ((40, 3), (30, 4), (20, 6)) if record.levelno >= level), 7)
        fields = {name: str(value) for name in FIELDS if (value := getattr(record, name, None)) is not None}
        with contextlib.suppress(OSError):  # the journal is full or gone; there is nowhere to say so
            self._send(
                self.format(record),
                PRIORITY=str(priority),
                SYSLOG_IDENTIFIER="edge-face",
                LOGGER=record.name,
                CODE_FILE=record.pathname,
                CODE_LINE=record.lineno,
                CODE_FUNC=record.funcName,
                **fields,
            )


def journal_handler() -> logging.Handler | None:
    """Where standard error is the journal's; None elsewhere."""
    if not _is_journal(2):
        return None
    try:
        journal = import_module("systemd.journal")
    except ImportError:
        return None
    return _JournalHandler(journal.send)


def _is_journal(descriptor: int) -> bool:
    """As JOURNAL_STREAM (device:inode) says; it is inherited by programs whose output goes elsewhere."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
