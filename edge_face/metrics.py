"""What is measured while the daemon runs."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from edge_face.events import FrameResult

_SAMPLES = 600
"""A minute at 10 frames a second."""

PUBLISH_S = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
"""Limits of a histogram for a door: from at once to longer than anybody waits in front of it."""


def percentiles(samples: Sequence[float]) -> dict[str, float] | None:
    """p50, p95 and p99, rounded to 0.1; None without samples."""
    if not samples:
        return None
    p50, p95, p99 = np.percentile(np.asarray(samples, dtype=np.float64), (50, 95, 99))
    return {"p50": round(float(p50), 1), "p95": round(float(p95), 1), "p99": round(float(p99), 1)}


class Durations:
    """A histogram of seconds since the start, as Prometheus has them."""

    def __init__(self, limits: Sequence[float] = PUBLISH_S) -> None:
        self._limits = limits
        self._counts = [0] * (len(limits) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(self._limits, seconds)] += 1
        self._sum += seconds

    def payload(self) -> dict[str, Any]:
        """`buckets`: limit to how many took at most so long, the last one all."""
        names = [*map(str, self._limits), "+Inf"]
        return {
            "count": sum(self._counts),
            "sum_s": round(self._sum, 4),
            "buckets": dict(zip(names, accumulate(self._counts), strict=True)),
        }


class Meter:
    """One camera's frames: how many, how late, and where the time went."""

    def __init__(self) -> None:
        self.frames = 0
        self.dropped = 0
        self._grabs: deque[float] = deque(maxlen=_SAMPLES)
        self._latency_ms: deque[float] = deque(maxlen=_SAMPLES)
        self._stages_ms: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_SAMPLES))

    def frame(self, result: FrameResult, now: float) -> None:
        self.frames += 1
        self.dropped += result.dropped
        self._grabs.append(result.grabbed_at)
        self._latency_ms.append((now - result.grabbed_at) * 1000)
        for stage, took_ms in result.stages_ms.items():
            self._stages_ms[stage].append(took_ms)

    def fps(self, now: float, span_s: float = 5.0) -> float:
        """Frames judged per second in the last `span_s` seconds."""
        return round(sum(1 for grabbed_at in self._grabs if now - grabbed_at <= span_s) / span_s, 1)

    def payload(self, now: float) -> dict[str, Any]:
        return {
            "fps": self.fps(now),
            "frames": self.frames,
            "dropped": self.dropped,
            "latency_ms": percentiles(self._latency_ms),
            "stages_ms": {stage: percentiles(samples) for stage, samples in self._stages_ms.items()},
        }
