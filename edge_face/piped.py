"""A program that writes pictures to its standard output: started, read, watched, and ended with all that it started."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import subprocess
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from edge_face.config import mask_command
from edge_face.errors import CaptureError
from edge_face.freshness import CATCH_UP_S, SLACK_S, STALE_S, WAITED_S

if TYPE_CHECKING:
    from edge_face.clock import Clock

# The guard is the first process of the program's group. Its standard input is a pipe that only we can write to: closed,
# because we are gone, however that came, it ends the whole group; a line from us asks for the program's exit code.
_GUARD = """
/bin/sh -c "$1" </dev/null &
exec >/dev/null 2>&1
trap "" INT
if read -r _; then wait $!; exit $?; fi
kill -INT 0
sleep 0.3
kill -KILL 0
"""
_END_S = 0.3
"""For this long a program may put its camera down; Jetson's camera service suffers when it may not."""
_CHUNK = 1 << 20
_TAIL = 2000  # bytes of the program's last words
_QUOTED = 160  # characters of them in a message
_PAUSE_S = 0.1  # who was away from reading for longer may find what was stored meanwhile
_COMMON_SIZE = 65536  # of a pipe


class Arrivals:
    """Bounds how old the bytes are that come out of a pipe: none was written before `bound`.

    As with `freshness.Queue`: pictures that wait in a pipe, or in a program that cannot get rid of them, look new. Who
    has to wait for a picture knows that none was stored. A program that never lets its reader wait is believed once
    more was read in one go than a pipe holds, and for so long that nothing stored can be left.
    """

    def __init__(self, clock: Clock, capacity: int = _COMMON_SIZE) -> None:
        self.capacity = capacity
        self._clock = clock
        self.bound = self.ended = clock.monotonic()
        self._steady_since = self.bound
        self._offset = 0
        self._mark = (0, self.bound)
        self.bursts: deque[int] = deque(maxlen=10)
        """Bytes between two pauses of the program."""
        self._burst_from = 0
        self.usual_gap_s = 0.0
        """Between two pictures of which none had been stored. Less than half of it is no wait, only a busy machine."""

    def waited(self, began: float, between_pictures: bool) -> None:
        """Nothing was there at `began`; now there is."""
        if self._clock.monotonic() - began < WAITED_S:
            return
        self.bursts.append(self._offset - self._burst_from)
        self._burst_from = self._offset
        if between_pictures and self._clock.monotonic() - began >= self.usual_gap_s / 2.5:
            self.bound = began

    def read(self, count: int) -> None:
        now = self._clock.monotonic()
        if now - self.ended > _PAUSE_S:
            self._steady_since = now
            self._mark = (self._offset, now)
        self.ended = now
        offset, at = self._mark
        if self._offset - offset >= self.capacity:  # so these bytes were written after `at`
            if at - self._steady_since > CATCH_UP_S:
                self.bound = max(self.bound, at)
            self._mark = (self._offset, now)
        self._offset += count

    def date(self, bound: float) -> float:
        """When a picture was taken whose first bytes came with that bound: not later than now, nor than is known."""
        return min(self._clock.monotonic(), bound + SLACK_S)

    def stale(self, bound: float) -> bool:
        return self._clock.monotonic() - self.date(bound) > STALE_S


class Program:
    """One run of a command."""

    def __init__(self, name: str, command: str, clock: Clock) -> None:
        """`name` is what messages call it. The command is run by /bin/sh, in a group of its own."""
        self.name = name
        self._clock = clock
        ours, theirs = os.pipe()
        errors, their_errors = os.pipe()
        lifeline, self._lifeline = os.pipe()
        try:
            self._guard = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD, name, command],
                stdin=lifeline,
                stdout=theirs,
                stderr=their_errors,
                start_new_session=True,
            )
        except OSError as error:
            for end in (ours, errors, self._lifeline):
                os.close(end)
            raise CaptureError(f"{name}: cannot be started ({error.strerror})") from None
        finally:
            for end in (theirs, their_errors, lifeline):
                os.close(end)
        self._output, self._errors = ours, errors
        self._poll = select.poll()
        for end in (ours, errors):
            os.set_blocking(end, False)
            self._poll.register(end, select.POLLIN)
        self._tail = b""
        self.written = 0
        self.arrivals = Arrivals(clock)

    def enlarge_pipe(self, picture: int) -> None:
        """A larger pipe saves wake-ups, as long as it does not hold a whole picture."""
        wanted = min(_CHUNK, 1 << max(12, picture.bit_length() - 1))
        if wanted > _COMMON_SIZE:
            with suppress(OSError):  # more than this user may have
                self.arrivals.capacity = fcntl.fcntl(self._output, fcntl.F_SETPIPE_SZ, wanted)

    def read(self, deadline: float, between_pictures: bool) -> bytes:
        """What it wrote, at least a byte; empty when nothing came until `deadline`. Raises CaptureError at its end."""
        began = self._clock.monotonic()
        waiting = False
        while True:
            left = deadline - self._clock.monotonic()
            ready = dict(self._poll.poll(0 if not waiting else max(0, left) * 1000))
            if self._errors in ready and not self._listen():
                self._poll.unregister(self._errors)
            if self._output in ready:
                if waiting:
                    self.arrivals.waited(began, between_pictures)
                data = os.read(self._output, _CHUNK)
                if not data:
                    raise CaptureError(self._why())
                self.arrivals.read(len(data))
                self.written += len(data)
                return data
            if left <= 0:
                return b""
            waiting = True

    def _listen(self) -> bool:
        """Keep the end of what it says; False when it will say no more. Unread, it would stop at a full pipe."""
        try:
            said = os.read(self._errors, _CHUNK)
        except BlockingIOError:
            return True
        self._tail = (self._tail + said)[-_TAIL:]
        return bool(said)

    @property
    def said(self) -> str:
        return self._tail.decode(errors="replace")

    def last_words(self) -> str:
        """` (its last line)`, without passwords, or nothing."""
        plain = re.sub(r"\x1b\[[\d;]*m", "", self.said)
        lines = [line.strip() for line in re.split(r"[\r\n]+", plain) if line.strip()]
        if not lines:
            return ""
        line = "".join(char if char.isprintable() else " " for char in mask_command(lines[-1]))
        return f" ({line[:_QUOTED]})"

    def _why(self) -> str:
        with suppress(BrokenPipeError):
            os.write(self._lifeline, b"\n")
        try:
            code = self._guard.wait(_END_S)
        except subprocess.TimeoutExpired:
            return f"{self.name} closed its output{self.last_words()}"
        self._listen()
        how = f"was killed by signal {code - 128}" if code > 128 else f"ended with exit code {code}"
        return f"{self.name} {how}{self.last_words()}"

    def close(self) -> None:
        """End it and everything in its group; none of them is left when this returns."""
        group = self._guard.pid
        with suppress(BrokenPipeError):
            os.write(self._lifeline, b"\n")
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGINT)
        end = time.monotonic() + _END_S
        while self._guard.returncode is None and not _ended(group) and time.monotonic() < end:
            time.sleep(0.01)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
        self._guard.wait()
        for descriptor in (self._lifeline, self._output, self._errors):
            os.close(descriptor)
        _wait_for_all(group)


def _ended(process: int) -> bool:
    """Whether it is over; without reaping it, which would give its number, that of the group, free."""
    with suppress(ChildProcessError):
        return os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
    return True


def _wait_for_all(group: int) -> None:
    """Until none of a killed group is left, so that the next start finds the camera free.

    A camera's child inherits the orphans of what it started (`lifeline.live`), and they must not stay as zombies.
    """
    end = time.monotonic() + _END_S
    with suppress(ProcessLookupError, PermissionError):
        while time.monotonic() < end:
            with suppress(ChildProcessError):
                while os.waitid(os.P_PGID, group, os.WEXITED | os.WNOHANG) is not None:
                    pass
            os.killpg(group, 0)
            time.sleep(0.01)
