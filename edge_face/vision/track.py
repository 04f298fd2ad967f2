"""Follow faces from frame to frame: the same face in a row of frames is one track.

A track continues where its face still is *and* still looks like it. Place alone would hand one person's track to the
next who steps there; looks alone would join two people who resemble each other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from edge_face.events import Box, Encoding

_MIN_IOU = 0.2
SAME_FACE = 0.6
"""Distance up to which dlib itself calls two descriptors the same person (dlib, face_recognition.py example)."""
_SURELY_SAME_FACE = 0.4
"""Enough to find a face again that moved while it was out of sight."""
_VIEWS = 4


@dataclass(slots=True)
class _Track:
    id: int
    box: Box
    last_seen: float
    views: deque[Encoding] = field(default_factory=lambda: deque(maxlen=_VIEWS))
    """The last few looks, so that one turned or blurred view does not end the track."""

    def distance(self, encoding: Encoding) -> float:
        return float(min(np.linalg.norm(view - encoding) for view in self.views))


class Tracker:
    """`memory_s`: how long a face may be out of sight and still be the same track. `first_id`: the first number."""

    def __init__(self, memory_s: float, first_id: int = 1) -> None:
        self._memory_s = memory_s
        self._next_id = first_id
        self._tracks: list[_Track] = []

    def reset(self) -> None:
        """Forget all tracks; numbers go on."""
        self._tracks.clear()

    def update(self, boxes: Sequence[Box], encodings: Sequence[Encoding], now: float) -> list[int]:
        """The track number of each face of a frame grabbed at `now` (monotonic seconds)."""
        self._tracks = [track for track in self._tracks if now - track.last_seen <= self._memory_s]
        assigned: dict[int, _Track] = {}
        taken: set[int] = set()
        for _cost, index, track in sorted(self._candidates(boxes, encodings), key=lambda pair: pair[0]):
            if index not in assigned and track.id not in taken:
                assigned[index] = track
                taken.add(track.id)
        for index, (box, encoding) in enumerate(zip(boxes, encodings, strict=True)):
            track = assigned.get(index) or self._start(box, now)
            assigned[index] = track
            track.box, track.last_seen = box, now
            track.views.append(encoding)
        return [assigned[index].id for index in range(len(boxes))]

    def _candidates(self, boxes: Sequence[Box], encodings: Sequence[Encoding]) -> list[tuple[float, int, _Track]]:
        """Every pair of face and track that may be the same, with its cost: how unlike it is in looks and place."""
        pairs = []
        for (index, box), track in product(enumerate(boxes), self._tracks):
            distance, overlap = track.distance(encodings[index]), box.iou(track.box)
            if distance <= (SAME_FACE if overlap >= _MIN_IOU else _SURELY_SAME_FACE):
                pairs.append((distance + (1 - overlap), index, track))
        return pairs

    def _start(self, box: Box, now: float) -> _Track:
        track = _Track(self._next_id, box, now)
        self._next_id += 1
        self._tracks.append(track)
        return track
