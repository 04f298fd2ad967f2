"""The attendance file: one row for each visit, for spreadsheets and for programs that read the seed projects' file."""

from __future__ import annotations

import asyncio
import csv
import errno
import fcntl
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any

from edge_face.events import Event, State
from edge_face.folders import sync_folder
from edge_face.publish import RetryLater

HEADER = ("Name", "Timestamp")
UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class AttendanceFile:
    """A file with a header and a row for each visit; it may be moved, emptied or deleted at any time."""

    path: Path
    zone: tzinfo | None = None
    """Of the times in it; None: this box's own."""

    def append(self, name: str, timestamp: float, *, once: bool = False) -> None:
        """Add a row, all of it or nothing; it is on the disk when this returns. Raises OSError.

        `once`: not if it is the last row already. The process may have died after writing it and before noting that.
        """
        # Names stay as they are, also those that a spreadsheet may take for a formula (=, +, -, @): programs that read
        # this file compare them with the enrolled names. The xlsx export is the one for spreadsheets.
        row = _line(name, local_time(timestamp, self.zone))
        with self.path.open("a+b", buffering=0) as file:  # a buffer would write once more, on closing, what had failed
            fcntl.flock(file, fcntl.LOCK_EX)  # events and the answers of a remote server are written by two threads
            size = file.seek(0, os.SEEK_END)
            if not size:
                sync_folder(self.path.parent)
                row = _line(*HEADER) + row
            else:
                file.seek(max(0, size - len(row) - 1))
                tail = file.read()
                if once and tail == b"\n" + row:
                    return
                if not tail.endswith(b"\n"):
                    row = b"\n" + row  # somebody's last line, or our own that a power cut has torn
            try:
                if file.write(row) != len(row):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
            except OSError:
                _shorten(self.path, size)
                raise


def local_time(timestamp: float, zone: tzinfo | None = None) -> str:
    """Unix seconds as local time without a zone and with all six digits: 2025-05-21T20:01:14.123456."""
    return (
        datetime.fromtimestamp(timestamp, UTC).astimezone(zone).replace(tzinfo=None).isoformat(timespec="microseconds")
    )


class CsvSink:
    """Appends to a file that may be moved, emptied or deleted at any time: it is opened for each row."""

    name = "csv"
    history = True
    """A row says when somebody came, so it is as good an hour later."""
    healthy = True

    def __init__(self, file: AttendanceFile, *, unknown: bool = False) -> None:
        self._file = file
        self._unknown = unknown
        self._after_start = True

    def wants(self, event: Event) -> bool:
        return event.status == "PASS" or (self._unknown and event.status == "REJECT" and event.reason == "unknown")

    async def deliver(self, payload: Mapping[str, Any], deadline: float | None, late: bool) -> None:  # noqa: ARG002
        name = payload["name"] if payload["status"] == "PASS" else UNKNOWN
        if name is None:
            return  # erased since
        try:
            await asyncio.to_thread(self._file.append, name, payload["timestamp"], once=self._after_start)
        except OSError as error:
            raise RetryLater(f"{self._file.path} cannot be written: {error.strerror}") from error
        self._after_start = False

    def state(self, change: State) -> None:
        """The file is about visits only."""

    async def run(self) -> None:
        """There is no connection to keep."""

    async def close(self) -> None:
        """Nothing is held open."""


def _line(*fields: str) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(fields)
    return text.getvalue().encode()


def _shorten(path: Path, size: int) -> None:
    """After a full disk: half a row would spoil the next one."""
    try:
        os.truncate(path, size)
    except OSError:
        pass  # the next row starts on a new line then
