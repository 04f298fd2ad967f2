"""Events go on when the disk does not: numbered and held in memory, told live, and written down once it is back.

    disk fine     number and keep in the store (one transaction), then tell
    disk fails    number in memory, note the number where there is room for it, hold the event, then tell
    disk is back  keep what is held, note what is not there any more as missed (one transaction)

No number is given twice: the last one stands in the store, or, while that cannot be written, in the mark. The mark is a
block of its own beside the database, made while there is room, since overwriting it needs none; where the disk cannot
be written at all, it is a file in memory (/dev/shm), which outlives the process but no reboot.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import zlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_face.clock import Clock
from edge_face.errors import StoreError
from edge_face.events import Event, utc
from edge_face.outbox import EventStore, HeldEvent, Missed, OutboxItem, Target

_log = logging.getLogger(__name__)

HELD = 2000
"""Events held in memory, some megabytes. The oldest give way, and are noted as missed."""
WAIT_S = 1.0
"""How long another program may hold up an event by writing to the database; after that it goes on without."""
RECOVERY_WAIT_S = 0.2
SHOWN = 10
"""Notes of missed events that the status shows; the list of events shows all."""

MEMORY = Path("/dev/shm")  # noqa: S108  # only files of our own are believed
"""Outlives the process, not the boot."""

_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Storage:
    """How the store fares; made anew with each change, so that the event loop may read it at any time."""

    failing: bool = False
    reason: str = ""
    since: float | None = None
    """Unix seconds."""
    held: int = 0
    lost: int = 0
    """Of the events since then."""
    missed: tuple[Missed, ...] = ()

    def payload(self) -> dict[str, Any]:
        return {
            "state": "failing" if self.failing else "ok",
            "reason": self.reason,
            "since": self.since,
            "held": self.held,
            "lost": self.lost,
            "missed": [missed_payload(note) for note in self.missed],
        }


def missed_payload(note: Missed) -> dict[str, Any]:
    return {
        "first_seq": note.first_seq,
        "last_seq": note.last_seq,
        "since": utc(note.since),
        "until": utc(note.until),
        "reason": note.reason,
    }


class Journal:
    """The store as the publisher sees it. To be used from one thread; never raises StoreError."""

    def __init__(self, store: EventStore, clock: Clock, *, held: int = HELD, memory: Path = MEMORY) -> None:
        """Raises StoreError when the database cannot even be read."""
        self._store = store
        self._clock = clock
        self._limit = held
        self._mark = Mark(store.path, memory)
        self._held: dict[int, HeldEvent] = {}
        self._settled: dict[tuple[str, int], None] = {}
        self._drops: Counter[tuple[str, str]] = Counter()
        self._keep: Collection[str] | None = None
        """Targets that `forget_targets` could not keep alone."""
        self._failing = store.limited
        self._reason = "the disk cannot be written" if store.limited else ""
        self._since: float | None = self._clock.wall() if store.limited else None
        self._lost = 0
        self._lost_until = self._clock.wall()
        self._notes = tuple(store.missed(limit=SHOWN)) if not store.limited else ()
        self._seq = store.last_seq()
        given = self._mark.read()
        if given is not None and given.seq > self._seq:
            self._lost, self._lost_until, self._since = given.seq - self._seq, given.until, given.since
            self._seq, self._failing = given.seq, True
            self._reason = "edge-face ended before they could be stored"
            _log.warning("%d events of an earlier run are not in the database", self._lost)
        self._show()

    @property
    def storage(self) -> Storage:
        return self._storage

    def record(self, event: Event, targets: Sequence[Target] = ()) -> Event:
        """Number the event and keep it, on the disk or, while that is not possible, in memory."""
        if not self._failing:
            try:
                numbered = self._store.record(event, targets, wait_s=WAIT_S)
            except StoreError as error:
                self._fail(error)
            else:
                self._seq = numbered.seq
                return numbered
        self._seq += 1
        numbered = event.numbered(self._seq)
        now = self._clock.wall()
        self._since = now if self._since is None else self._since
        self._mark.write(Given(self._seq, self._since, now))
        deadlines = {target.name: target.deadline for target in targets}
        self._held[self._seq] = HeldEvent(numbered, self._clock.monotonic(), deadlines)
        if len(self._held) > self._limit:
            oldest = self._held.pop(next(iter(self._held)))
            self._drops.update((target, "full") for target in oldest.targets)
            self._lost += 1
            self._lost_until = now
        self._show()
        return numbered

    def pending(self, target: str) -> OutboxItem | None:
        """The oldest delivery that the target still has to get.

        While the disk fails, what is stored and has expired waits for its return: nobody could note that it is over,
        and it would be delivered again after a restart.
        """
        skip = [seq for name, seq in self._settled if name == target]
        item = None
        try:
            item = self._store.pending(target, skip, live_only=self._failing)
        except StoreError as error:
            self._fail(error)
        return item or self._pending_held(target)

    def _pending_held(self, target: str) -> OutboxItem | None:
        for seq, held in list(self._held.items()):
            if target not in held.targets:
                continue
            deadline = held.targets[target]
            if deadline is not None and (bar := self._bar(held.event)):
                self.drop(target, seq, bar)
                continue
            expired = deadline is not None and self._clock.monotonic() >= deadline
            return OutboxItem(target, seq, held.event.payload(), deadline, expired)
        return None

    def _bar(self, event: Event) -> str | None:
        try:
            return self._store.bar(event)
        except StoreError:  # nobody can have been removed or blocked then, either
            return None

    def done(self, target: str, seq: int) -> None:
        """The target has it."""
        if seq in self._held:
            self._held[seq].targets.pop(target, None)
            return
        if not self._failing:
            try:
                self._store.done(target, seq, wait_s=WAIT_S)
                return
            except StoreError as error:
                self._fail(error)
        self._settled[target, seq] = None

    def drop(self, target: str, seq: int, reason: str) -> None:
        """Give this delivery up; it is counted."""
        if seq in self._held:
            if target in self._held[seq].targets:
                del self._held[seq].targets[target]
                self._drops[target, reason] += 1
            return
        if not self._failing:
            try:
                self._store.drop(target, seq, reason, wait_s=WAIT_S)
                return
            except StoreError as error:
                self._fail(error)
        if (target, seq) not in self._settled:
            self._settled[target, seq] = None
            self._drops[target, reason] += 1

    def dropped(self) -> dict[str, dict[str, int]]:
        """Target to reason to how many deliveries were given up, also those that could not be noted down yet.

        Raises StoreError.
        """
        counts = self._store.dropped()
        for (target, reason), count in self._drops.items():
            reasons = counts.setdefault(target, {})
            reasons[reason] = reasons.get(reason, 0) + count
        return counts

    def forget_targets(self, keep: Collection[str]) -> int:
        """Remove the deliveries of targets that are no longer configured; returns how many."""
        self._keep = keep
        try:
            forgotten = self._store.forget_targets(keep)
        except StoreError as error:
            self._fail(error)
            return 0
        self._keep = None
        return forgotten

    def recover(self) -> bool:
        """Try to write down all that could not be written; True when there is nothing left. Call now and then."""
        if not self._failing:
            return True
        held = list(self._held.values())
        since = self._clock.wall() if self._since is None else self._since
        reason = self._reason
        try:
            note = self._store.catch_up(
                self._seq,
                held,
                tuple(self._settled),
                self._drops,
                (since, max(since, self._lost_until), reason),
                wait_s=RECOVERY_WAIT_S,
            )
        except StoreError:
            return False
        self._mark.clear()
        self._held.clear()
        self._settled.clear()
        self._drops.clear()
        self._failing, self._reason, self._since, self._lost = False, "", None, 0
        if note:
            _log.warning("events %d to %d were not stored: %s", note.first_seq, note.last_seq, note.reason)
            self._notes = (note, *self._notes)[:SHOWN]
        _log.warning("the database can be written again; %d events since %s were stored late", len(held), utc(since))
        self._show()
        if self._keep is not None:
            self.forget_targets(self._keep)
        return True

    def _fail(self, error: StoreError) -> None:
        if not self._failing:
            self._failing, self._reason = True, error.reason
            self._since = self._clock.wall()
            _log.error("events go on without the database, and are held in memory: %s", error)
        self._show()

    def _show(self) -> None:
        held = len(self._held)
        self._storage = Storage(self._failing, self._reason, self._since, held, self._lost, self._notes)


@dataclass(frozen=True, slots=True)
class Given:
    """The last number that was given without the store, and the time of the first and the last one."""

    seq: int
    since: float
    until: float


class Mark:
    """Remembers one `Given` over a crash, also on a full disk. What cannot be remembered is logged once."""

    def __init__(self, database: Path, memory: Path) -> None:
        digest = hashlib.sha256(bytes(database.absolute())).hexdigest()[:16]
        self._places = (
            database.with_name(database.name + ".mark"),
            memory / f"edge-face-{os.geteuid()}-{digest}.mark",
        )
        self._told = False
        self._prepare()

    def read(self) -> Given | None:
        """What any of the places knows, the highest number; None: nothing."""
        found = [given for place in self._places if (given := _read(place)) is not None]
        return max(found, key=lambda given: given.seq, default=None)

    def write(self, given: Given) -> None:
        text = f"{given.seq} {given.since!r} {given.until!r}"
        block = f"{text} {zlib.crc32(text.encode()):08x}\n".encode()
        for place in self._places:
            try:
                _overwrite(place, block)
            except OSError:
                continue
            return
        if not self._told:
            _log.error("should edge-face end before the disk is back, some numbers of events will be given again")
            self._told = True

    def clear(self) -> None:
        """All is in the store. What stays behind does no harm as long as the store knows a higher number."""
        self._told = False
        try:
            self._places[1].unlink(missing_ok=True)
            _overwrite(self._places[0], b"")
        except OSError as error:
            _log.debug("the mark of the last number stays: %s", error.strerror)

    def _prepare(self) -> None:
        """Take the room while there is some."""
        place = self._places[0]
        try:
            if not place.exists() or place.stat().st_size < _BLOCK:
                _overwrite(place, b"")
        except OSError as error:
            _log.debug("there is no room for a mark in %s: %s", place, error.strerror)


def _open(place: Path, flags: int = 0) -> int:
    """Only a plain file of our own: others can write to the folder in memory, too."""
    descriptor = os.open(place, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        os.close(descriptor)
        raise PermissionError(1, "it belongs to somebody else")
    return descriptor


def _overwrite(place: Path, block: bytes) -> None:
    descriptor = _open(place, os.O_CREAT)
    try:
        if os.pwrite(descriptor, block.ljust(_BLOCK, b"\n"), 0) != _BLOCK:
            raise OSError(28, "no room")
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def _read(place: Path) -> Given | None:
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if os.fstat(descriptor).st_uid != os.geteuid():
                return None
            line = os.read(descriptor, _BLOCK).split(b"\n", 1)[0].decode("ascii", "replace")
        finally:
            os.close(descriptor)
        text, _, check = line.rpartition(" ")
        if f"{zlib.crc32(text.encode()):08x}" != check:
            return None
        seq, since, until = text.split(" ")
        return Given(int(seq), float(since), float(until))
    except (OSError, ValueError):
        return None
