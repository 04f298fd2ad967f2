"""The delivery loop: an event is committed first, then brought to each sink in order, and never live after its time."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from edge_face.clock import Clock
from edge_face.database import StoreThread
from edge_face.errors import EdgeFaceError
from edge_face.events import Event, Snapshot, State
from edge_face.journal import Journal, Storage
from edge_face.metrics import Durations
from edge_face.outbox import OutboxItem, Target

_log = logging.getLogger(__name__)

HISTORY = "face_event.history"
"""The type of an event that is sent after it expired, so that nobody takes it for a live one."""

FIRST_RETRY_S = 0.25
LONGEST_RETRY_S = 60.0
LONGEST_LIVE_RETRY_S = 2.0
"""A live event is over in seconds, and each attempt also finds out for the next event whether the target is back."""
LAST_DELIVERY_S = 1.0
"""A sink that is taken away may finish what it delivers; what it does not get done stays queued."""
RECOVER_S = 1.0
"""How often it is tried whether the disk is back."""


class RetryLater(EdgeFaceError):
    """Not delivered, and another attempt may succeed. `after_s`: the receiver's own wish for when."""

    def __init__(self, message: str, after_s: float | None = None) -> None:
        super().__init__(message, "retry_later")
        self.after_s = after_s


class Refused(EdgeFaceError):
    """Not delivered, and no further attempt would change that."""

    code = "refused"


class AskAgain(EdgeFaceError):
    """Not delivered yet: the way was closed for a while, and the delivery may have been called back since."""

    code = "ask_again"


class SwitchedOff(EdgeFaceError):
    """The receiver wants nothing more at all."""

    code = "switched_off"


class Sink(Protocol):
    """One way out. Implementations do not wait on the event loop's thread, and know nothing of the store."""

    @property
    def name(self) -> str:
        """The outbox target; it stays the same over restarts."""

    @property
    def history(self) -> bool:
        """Whether events are delivered even after they expired. False: live only."""

    @property
    def healthy(self) -> bool:
        """Whether the way out is open, as far as it is known without an event."""

    def wants(self, event: Event) -> bool:
        """Whether the event is for this sink."""

    async def deliver(self, payload: Mapping[str, Any], deadline: float | None, late: bool) -> None:
        """One attempt; returns when the receiver has it. Raises RetryLater, AskAgain, Refused or SwitchedOff.

        `deadline` (seconds of `Clock.monotonic`) is when the attempt must be over; None: no limit but the sink's own.
        `late`: the event has expired, and the payload says so.
        """

    def state(self, change: State) -> None:
        """Take note of a state; returns at once. Only the newest of each kind and camera counts."""

    async def run(self) -> None:
        """Keep what has to be kept up, until cancelled. A sink without a connection returns at once."""

    async def close(self) -> None:
        """Give everything back; called after `run` and `deliver` have ended."""


class Pictures(Protocol):
    """What a sink may ask of the cameras."""

    async def picture(self, camera: str, *, small: bool = False) -> Snapshot:
        """The newest one. Raises CaptureError, NotFoundError."""


@dataclass(slots=True)
class Counters:
    """Of one sink, since the start."""

    delivered: int = 0
    expired: int = 0
    refused: int = 0
    retries: int = 0


class Publisher:
    """Brings events to all sinks; a slow or dead one delays no other."""

    def __init__(self, outbox: Journal, thread: StoreThread, sinks: Sequence[Sink], clock: Clock) -> None:
        self._outbox = outbox
        self._thread = thread
        self._clock = clock
        self._lanes = [self._lane(sink) for sink in sinks]
        self._states: dict[tuple[type[State], str], State] = {}
        """The newest of each kind and camera, for a sink that comes later."""
        self._group: asyncio.TaskGroup | None = None
        """Of the lanes, while they run."""

    async def publish(self, event: Event, deadline: float) -> Event:
        """Number and keep the event, then start its delivery; returns it. `deadline`: seconds of `Clock.monotonic`."""
        lanes = [lane for lane in self._lanes if lane.wants(event)]
        targets = [Target(lane.sink.name, deadline) for lane in lanes]
        numbered = await self._thread.run(self._outbox.record, event, targets)
        for lane in lanes:
            lane.wake()
        return numbered

    def state(self, change: State) -> None:
        self._states[type(change), change.camera] = change
        for lane in self._lanes:
            lane.sink.state(change)

    def forget_camera(self, camera: str) -> None:
        """It is there no more; sinks that come later hear nothing of it."""
        self._states = {key: state for key, state in self._states.items() if key[1] != camera}

    async def use(self, sinks: Sequence[Sink], unchanged: Collection[str]) -> None:
        """Other sinks from now on. Of those named in `unchanged` the old one goes on, and the new one is not used.

        What is queued for one that is changed goes to its successor.
        """
        staying = {lane.sink.name: lane for lane in self._lanes if lane.sink.name in unchanged}
        leaving = [lane for lane in self._lanes if lane.sink.name not in staying]
        # Both at once: an event of meanwhile is queued for the new ones, and nobody delivers it twice.
        self._lanes = [staying.get(sink.name) or self._lane(sink) for sink in sinks]
        coming = [lane for lane in self._lanes if lane not in staying.values()]
        await asyncio.gather(*(lane.leave() for lane in leaving))
        await self._thread.run(self._outbox.forget_targets, [lane.sink.name for lane in self._lanes])
        for lane in coming:
            for state in list(self._states.values()):
                lane.sink.state(state)
            if self._group:
                lane.start(self._group)

    def _lane(self, sink: Sink) -> _Lane:
        return _Lane(self._outbox, self._thread, sink, self._clock)

    def people_changed(self) -> None:
        """Deliveries under way that were called back, as their person may not pass any more, are broken off."""
        if self._group:
            for lane in self._lanes:
                self._group.create_task(lane.people_changed())

    async def run(self) -> None:
        """Until cancelled. Raises, and so ends the process, when a part dies of something unforeseen."""
        try:
            await self._thread.run(self._outbox.forget_targets, [lane.sink.name for lane in self._lanes])
            async with asyncio.TaskGroup() as group:
                self._group = group
                for lane in self._lanes:
                    lane.start(group)
                await self._recover()  # for ever, also without any sink
        finally:
            self._group = None
            for lane in reversed(self._lanes):
                await lane.close()

    async def _recover(self) -> None:
        """Write down what could not be written, as soon as that works again."""
        while True:
            await asyncio.sleep(RECOVER_S)
            if self.storage.failing and await self._thread.run(self._outbox.recover):
                for lane in self._lanes:
                    lane.wake()

    async def drain(self, timeout_s: float) -> bool:
        """Wait until all is delivered or expired; False when the time was not enough. `run` must be running."""
        try:
            async with asyncio.timeout(timeout_s):
                for lane in self._lanes:
                    await lane.idle.wait()
        except TimeoutError:
            busy = ", ".join(lane.sink.name for lane in self._lanes if not lane.idle.is_set())
            _log.warning("not everything could be delivered to %s; it stays queued", busy)
            return False
        return True

    @property
    def storage(self) -> Storage:
        return self._outbox.storage

    @property
    def healthy(self) -> bool:
        return all(lane.healthy for lane in self._lanes) and not self.storage.failing

    @property
    def counters(self) -> Mapping[str, Counters]:
        return {lane.sink.name: lane.counters for lane in self._lanes}

    def status(self) -> dict[str, dict[str, Any]]:
        return {
            lane.sink.name: {
                "healthy": lane.healthy,
                "switched_off": lane.off,
                **asdict(lane.counters),
                "capture_to_publish": lane.took.payload(),
            }
            for lane in self._lanes
        }


class _Lane:
    """One sink's deliveries, one after the other in the order of the events."""

    def __init__(self, outbox: Journal, thread: StoreThread, sink: Sink, clock: Clock) -> None:
        self.sink = sink
        self.counters = Counters()
        self.took = Durations()
        """From the grab to when the receiver had it, of those that were live then."""
        self.off = False
        self.idle = asyncio.Event()
        self._outbox = outbox
        self._thread = thread
        self._clock = clock
        self._wake = asyncio.Event()
        self._failures = 0
        """Attempts in a row that failed; it outlives the event, so that a dead target is not hammered."""
        self._told: set[str] = set()
        """What was logged since the last success: an outage is told once, not once for every event."""
        self._attempt: tuple[asyncio.Timeout, int] | None = None
        """The live attempt under way, and the number of its event."""
        self._broken_off = False
        self._leaving = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, group: asyncio.TaskGroup) -> None:
        self._tasks = [
            group.create_task(self.sink.run(), name=self.sink.name),
            group.create_task(self.run(), name=f"deliver to {self.sink.name}"),
        ]

    async def leave(self) -> None:
        """Another sink takes its place, or none."""
        self._leaving = True
        self._wake.set()
        if self._tasks:
            await asyncio.wait(self._tasks[1:], timeout=LAST_DELIVERY_S)
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
        await self.close()

    async def close(self) -> None:
        try:
            await self.sink.close()
        except Exception:  # one sink's failing clean-up must not skip the next
            _log.exception("%s could not be closed", self.sink.name)

    @property
    def healthy(self) -> bool:
        return self.sink.healthy and not self.off and not self._failures

    def wants(self, event: Event) -> bool:
        return not self.off and self.sink.wants(event)

    def wake(self) -> None:
        self.idle.clear()
        self._wake.set()

    async def people_changed(self) -> None:
        """An attempt may wait for the broker's return. What it holds of somebody who was removed or blocked must not go
        out then: the store says whether it is still to be delivered.
        """
        attempt = self._attempt
        item = await self._next() if attempt else None
        if attempt and attempt is self._attempt and (item is None or item.seq != attempt[1]):
            self._broken_off = True
            attempt[0].reschedule(asyncio.get_running_loop().time())

    async def run(self) -> None:
        while not self.off and not self._leaving:
            self._wake.clear()
            item = await self._next()
            if item is not None:
                await self._deliver(item)
                continue
            if not self._wake.is_set():  # set: an event was committed after the store was asked
                self.idle.set()
            if not self._leaving:
                await self._wake.wait()
        self.idle.set()

    async def _deliver(self, item: OutboxItem) -> None:
        """One attempt. What is still queued is asked for anew: meanwhile it may have expired, or been taken back."""
        left = item.time_left(self._clock.monotonic())
        late = left == 0
        if late and not self.sink.history:
            await self._expire(item)
            return
        payload = {**item.payload, "type": HISTORY} if late else item.payload
        try:
            # A live attempt may not outlast the event. One with history only changes its type: the sink's affair.
            async with asyncio.timeout(None if self.sink.history else left) as timeout:
                self._broken_off, self._attempt = False, None if late else (timeout, item.seq)
                try:
                    await self.sink.deliver(payload, None if late else item.deadline, late)
                finally:
                    self._attempt = None
        except RetryLater as error:
            await self._wait(item, str(error), error.after_s)
        except AskAgain:
            pass
        except TimeoutError:
            if not self._broken_off:
                self._failures += 1
                self._tell("no answer before the event expired")
        except Refused as error:
            _log.error("%s refused event %d: %s", self.sink.name, item.seq, error)
            self.counters.refused += 1
            await self._settle(item, "parked")
        except SwitchedOff as error:
            _log.error("%s gets nothing more until edge-face starts again: %s", self.sink.name, error)
            self.off = True
        else:
            self.counters.delivered += 1
            if item.deadline is not None and not late:
                self.took.add(self._clock.monotonic() - (item.deadline - item.lifetime_s))
            await self._settle(item)
            self._recovered()

    async def _wait(self, item: OutboxItem, reason: str, after_s: float | None) -> None:
        """Back off, but not beyond the event's end: then something else is to be done with it."""
        self._tell(reason)
        self._failures += 1
        self.counters.retries += 1
        longest = LONGEST_RETRY_S if self.sink.history else LONGEST_LIVE_RETRY_S
        pause = min(longest, FIRST_RETRY_S * 2.0 ** min(self._failures - 1, 16)) * random.uniform(0.5, 1)
        pause = pause if after_s is None else max(pause, after_s)
        left = item.time_left(self._clock.monotonic())
        if left:
            pause = min(pause, left)
        if after_s is not None or pause <= LONGEST_LIVE_RETRY_S:
            await asyncio.sleep(pause)
            return
        # A long pause is cut short by a new event: it is still live, and the target may be back.
        await asyncio.sleep(LONGEST_LIVE_RETRY_S)
        try:
            async with asyncio.timeout(pause - LONGEST_LIVE_RETRY_S):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _expire(self, item: OutboxItem) -> None:
        self._tell("events expire before they can be delivered")
        self.counters.expired += 1
        await self._settle(item, "expired")

    def _tell(self, reason: str) -> None:
        if reason not in self._told:
            self._told.add(reason)
            _log.warning("%s: %s", self.sink.name, reason)

    def _recovered(self) -> None:
        self._failures = 0
        if self._told:
            self._told.clear()
            _log.info("%s: delivered again; %d expired so far", self.sink.name, self.counters.expired)

    async def _next(self) -> OutboxItem | None:
        return await self._thread.run(self._outbox.pending, self.sink.name)

    async def _settle(self, item: OutboxItem, dropped: str | None = None) -> None:
        if dropped is None:
            await self._thread.run(self._outbox.done, item.target, item.seq)
        else:
            await self._thread.run(self._outbox.drop, item.target, item.seq, dropped)
