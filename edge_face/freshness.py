"""How old a picture may be: what waited in a socket or a driver looks like new, and must never pass for it."""

from __future__ import annotations

import fcntl
import math
import socket
import struct
import termios
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import cv2

    from edge_face.clock import Clock
    from edge_face.images import BgrImage

SLACK_S = 0.25  # the most by which a frame is dated too young; slower cameras than 4 fps are dated a little too old
STALE_S = 0.5  # a queued frame that may be older is passed over for a newer one
GAP_S = 0.75  # without a frame from a source that dates none: what comes after it may be as old as that
WAITED_S = 0.01  # who slept this long for a frame found nothing in the queue
FROZEN_S = 4.0
"""A camera whose picture has not changed for so long is lost."""
CATCH_UP_S = 1.0
"""For so long frames that were stored somewhere are passed over."""

_CYCLE_S = 2.5  # a picture that was shown within this time is no new one
_LINES = 64  # of a picture are compared; a face is higher than the space between them

_BYTES_RECEIVED = 128  # linux/tcp.h: where tcpi_bytes_received stands in struct tcp_info


class Queue:
    """Grabs frames, and bounds how old each may be: it came after the last moment at which nothing was queued.

    A frame that waited in a socket or a driver looks like a new one. That nothing was queued is known when a grab took
    bytes that reached this machine only after it began; kernel counters say so, and they hold on a starved or stopped
    machine too. Without a connection to ask, a grab that slept counts: load can feign that, but a device queues little.
    """

    def __init__(self, capture: cv2.VideoCapture, clock: Clock, connection: socket.socket | None = None) -> None:
        self._capture = capture
        self._clock = clock
        self._connection = connection
        self._empty_at = self.ended = clock.monotonic()
        self.gap = 0.0  # from the end of the last grab to the end of this one, whatever the time was spent on
        self.fresh = False  # nothing was queued when the grab began

    @property
    def grabbed_at(self) -> float:
        """Not the end of the grab if that came late: the process may have been stopped in it, or the frame held up."""
        return min(self.ended, self._empty_at + SLACK_S)

    @property
    def stale(self) -> bool:
        return not self.fresh and self.ended - self.grabbed_at > STALE_S

    def grab(self) -> bool:
        began = self._clock.monotonic()  # before the counters: a stop between them makes the frame older, not newer
        worked, arrived = time.thread_time(), self._bytes()[0]
        good = self._capture.grab()
        reached, waiting = self._bytes()
        ended = self._clock.monotonic()
        slept = ended - began - (time.thread_time() - worked)
        self.fresh = reached - waiting > arrived if arrived else slept > WAITED_S
        if self.fresh:
            self._empty_at = began
        self.gap, self.ended = ended - self.ended, ended
        return good

    def _bytes(self) -> tuple[int, int]:
        """How many came over the connection so far, and how many of them were not yet read; (0, 0): not known."""
        if not self._connection:
            return 0, 0
        try:
            info = self._connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_RECEIVED + 8)
            waiting = fcntl.ioctl(self._connection, termios.FIONREAD, bytes(4))
            return struct.unpack_from("=Q", info, _BYTES_RECEIVED)[0], struct.unpack("=i", waiting)[0]
        except (OSError, struct.error):  # Linux before 4.1
            return 0, 0

    def close(self) -> None:
        self._capture.release()
        if self._connection:
            self._connection.close()


class Lag:
    """How far a live stream has fallen behind, from the time stamps its camera put on the frames.

    A decoder that is too slow, or a network that stutters, delivers frames that are seconds old and look new. The
    smallest difference between arrival and time stamp so far is taken for "no delay". It may rise by 0.1 %, because
    clocks drift.
    """

    def __init__(self) -> None:
        self._last = (0.0, -math.inf)
        self._least = math.inf
        self.useful = False
        """Whether the last time stamp could be used."""

    def update(self, arrived: float, position_s: float) -> float:
        """Seconds by which this frame is late; 0 where its time stamp is of no use (standing still, jumped back)."""
        before, last = self._last
        offset = arrived - position_s
        self._last = (arrived, position_s)
        self.useful = position_s > last and math.isfinite(self._least)
        if not self.useful:
            self._least = offset
            return 0.0
        self._least = min(offset, self._least + 0.001 * (arrived - before))
        return offset - self._least


class Changes:
    """Tells pictures that show something new from repeated ones.

    A camera that froze sends its last picture for ever. Each live one differs from all before it, if only by the
    sensor's noise. Equal means bit for bit; also to a picture some time ago, because drivers have been seen to go round
    in their few buffers, and what an encoder makes of one picture goes round with its key frames.
    """

    def __init__(self, frozen_s: float = FROZEN_S) -> None:
        """`frozen_s` 0: never frozen."""
        self._frozen_s = frozen_s
        self._seen: dict[int, float] = {}
        self._last: int | None = None
        """Of a camera that gives a picture every few seconds each is compared at least with the one before."""
        self._changed_at: float | None = None

    def is_new(self, image: BgrImage, now: float) -> bool:
        lines = image[:: max(1, image.shape[0] // _LINES)]
        mark = hash((image.shape, lines.tobytes()))
        known = self._seen.pop(mark, None)
        self._seen[mark] = now  # at the end: the oldest one is always the first
        while now - next(iter(self._seen.values())) > _CYCLE_S:
            del self._seen[next(iter(self._seen))]
        repeated = mark == self._last or (known is not None and now - known <= _CYCLE_S)
        self._last = mark
        if repeated:
            return False
        self._changed_at = now
        return True

    def frozen(self, now: float) -> bool:
        return 0 < self._frozen_s < self._still_s(now)

    def reason(self, now: float) -> str:
        return f"the picture has not changed for {self._still_s(now):.0f} s"

    def _still_s(self, now: float) -> float:
        return 0.0 if self._changed_at is None else now - self._changed_at
