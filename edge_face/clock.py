"""Time, as an object that is passed in, so that everything that depends on time can be tested without waiting."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import Protocol

_STA_UNSYNC = 0x0040  # linux/timex.h
_TIME_ERROR = 5  # adjtimex(2): "the system clock is not synchronized"


class Clock(Protocol):
    def monotonic(self) -> float:
        """Seconds since boot, never set back. Comparable between the processes of one boot."""

    def wall(self) -> float:
        """Unix time in seconds. May jump; never used for ages, votes or cooldowns."""


class SystemClock:
    def monotonic(self) -> float:
        # BOOTTIME and not MONOTONIC: an event must also expire while a machine sleeps.
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall(self) -> float:
        return time.time()


class _Timex(ctypes.Structure):
    """The head of `struct timex`; the kernel writes about 208 bytes, the rest is padding that nobody reads."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("padding", ctypes.c_byte * 256),
    )


def wall_clock_synchronised() -> bool:
    """Whether the kernel says that the wall clock follows a time source (adjtimex(2), read only)."""
    timex = _Timex()
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    if state < 0:  # a sandbox may forbid the call; systemd-timesyncd leaves a file as well
        return Path("/run/systemd/timesync/synchronized").exists()
    return state != _TIME_ERROR and not timex.status & _STA_UNSYNC


def trusted_date() -> float | None:
    """Unix seconds; None while the wall clock is not synchronised, and so may say anything."""
    return time.time() if wall_clock_synchronised() else None


def boot_id() -> str:
    """A name for this boot: monotonic times of two different boots cannot be compared."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
