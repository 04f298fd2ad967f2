"""What a run of `edge-face bench` found: plain dataclasses, which are also its JSON."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge_face.errors import EdgeFaceError

FORMAT = 1
"""Counted up when the JSON changes its meaning."""


class BenchError(EdgeFaceError):
    """It cannot be measured here, and why."""

    code = "bench"


@dataclass(frozen=True, slots=True)
class Timing:
    """Wall clock of one piece of work, in milliseconds."""

    name: str
    p50_ms: float
    p95_ms: float
    p99_ms: float
    runs: int

    @classmethod
    def of(cls, name: str, took_ms: Sequence[float]) -> Timing:
        p50, p95, p99 = (round(float(value), 4) for value in np.percentile(took_ms, (50, 95, 99)))
        return cls(name, p50, p95, p99, len(took_ms))


def timed(name: str, work: Callable[[int], object], budget_s: float, least: int = 3, most: int = 500) -> Timing:
    """`work` is given the number of the run. A first one is not counted: it fills caches."""
    work(0)
    took: list[float] = []
    end = time.perf_counter() + budget_s
    while len(took) < least or (len(took) < most and time.perf_counter() < end):
        begin = time.perf_counter()
        work(len(took))
        took.append((time.perf_counter() - begin) * 1000)
    return Timing.of(name, took)


@dataclass(frozen=True, slots=True)
class MatchCost:
    """One face compared with a gallery of so many."""

    faces: int
    timing: Timing


@dataclass(frozen=True, slots=True)
class SearchCost:
    """A whole frame searched by a detector for faces of `min_face` pixels and more."""

    detector: str
    min_face: int
    timing: Timing


@dataclass(frozen=True, slots=True)
class ThreadCost:
    """Search, align and encode with so many threads."""

    threads: int
    timing: Timing


@dataclass(frozen=True, slots=True)
class CameraRun:
    """Cameras' processes as the daemon has them, each judging frames as fast as it can."""

    detector: str
    cameras: int
    fps: float
    """Of all of them together."""
    frame: Timing
    """Work for one frame, from the search to the encoding."""
    memory_mib: float
    """Of one camera's process (PSS)."""
    cpu_ms: float = 0.0
    """Processor's time of one camera's process for a frame, its reading included: nobody else's work is in it."""


@dataclass(frozen=True, slots=True)
class Speed:
    """How long one kind of work takes with so many threads: `fixed_ms`, and its arithmetic at `gflops`."""

    kind: str
    threads: int
    gflops: float
    """1,000,000,000 operations a second; 0: it always takes `fixed_ms`."""
    fixed_ms: float


@dataclass(frozen=True, slots=True)
class Rates:
    """What ten seconds tell of a board, and what all else can be predicted from."""

    speeds: tuple[Speed, ...]
    copy_gbs: float
    """Gigabytes a second that one core reads and writes, together."""
    copy_all_gbs: float
    """The same of all cores at once."""
    fresh_gbs: float
    """Gigabytes of memory that the kernel makes a second."""
    rounds: int
    seconds: float

    def speed(self, kind: str, threads: int = 1) -> Speed | None:
        """With the most threads that were tried, `threads` at most."""
        found = [each for each in self.speeds if each.kind == kind and each.threads <= threads]
        return max(found, key=lambda each: each.threads, default=None)


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at the board during the run."""

    at_s: float
    temperature_c: float | None
    watts: float | None
    memory_mib: float
    """Of this program and its children (PSS)."""


@dataclass(frozen=True, slots=True)
class Vitals:
    samples: tuple[Sample, ...] = ()
    throttled: tuple[str, ...] = ()
    """What slowed the board down during the run; empty: nothing, as far as it tells."""
    throttling_known: bool = False
    others: float = 0.0
    """Part of the processor's time, 0 to 1, that other programs took meanwhile."""

    @property
    def hottest_c(self) -> float | None:
        return max((sample.temperature_c for sample in self.samples if sample.temperature_c is not None), default=None)

    @property
    def watts(self) -> float | None:
        told = [sample.watts for sample in self.samples if sample.watts is not None]
        return round(sum(told) / len(told), 2) if told else None

    @property
    def memory_mib(self) -> float:
        return max((sample.memory_mib for sample in self.samples), default=0.0)


@dataclass(frozen=True, slots=True)
class Board:
    name: str
    machine: str
    cpus: int
    memory_mib: int
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measured:
    """All that was found, without what follows from it."""

    board: Board
    source: str
    width: int
    height: int
    backend: str
    quick: bool
    date: str
    seconds: float
    start_s: float
    """Until a process had loaded its models."""
    stages: tuple[Timing, ...]
    searches: tuple[SearchCost, ...]
    threads: tuple[ThreadCost, ...]
    matches: tuple[MatchCost, ...]
    cameras: tuple[CameraRun, ...]
    vitals: Vitals
    notes: tuple[str, ...] = ()
    """What could not be measured, and why."""
    rates: Rates | None = None

    def stage(self, name: str) -> Timing | None:
        return next((stage for stage in self.stages if stage.name == name), None)


@dataclass(frozen=True, slots=True)
class Speeds:
    """A board of which nobody knows more than its ten seconds."""

    board: Board
    date: str
    backend: str
    others: float
    """Part of the processor's time, 0 to 1, that other programs took meanwhile."""
    rates: Rates


@dataclass(frozen=True, slots=True)
class Advice:
    """`settings`: `section.key` to the value that suits this board; empty where none holds the latency."""

    settings: dict[str, str]
    latency_ms: float
    """That was asked for."""
    expected_ms: float
    """From the first picture of a face to the decision, with these settings and one camera."""
    cameras: int
    people: int
    people_at_least: bool
    """More were not tried."""
    words: tuple[str, ...]

    @property
    def holds(self) -> bool:
        return self.cameras > 0

    def fragment(self) -> str:
        """The same for config.ini."""
        lines: list[str] = []
        for section in dict.fromkeys(key.partition(".")[0] for key in self.settings):
            lines.append(f"[{section}]")
            lines += [
                f"{key.partition('.')[2]} = {value}"
                for key, value in self.settings.items()
                if key.startswith(f"{section}.")
            ]
        return "\n".join(lines)


def as_json(measured: Measured, advice: Advice) -> dict[str, Any]:
    return {
        "format": FORMAT,
        **dataclasses.asdict(measured),
        "advice": {**dataclasses.asdict(advice), "fragment": advice.fragment()},
    }
