"""Follow faces from frame to frame: the same face in a row of frames is one track.

A track continues where its face still is *and* still looks like it. Place alone would hand one person's track to the
next who steps there; looks alone would join two people who resemble each other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edge_face.events import Box, Encoding, KnownTrack
from edge_face.vision.follow import MIN_LIKENESS, Template

MIN_IOU = 0.2
SAME_FACE = 0.6
"""Distance up to which dlib itself calls two descriptors the same person (dlib, face_recognition.py example)."""
SURELY_SAME_FACE = 0.4
"""Enough to find a face again that moved while it was out of sight."""
VIEWS = 4
_NOWHERE = Box(0, 0, 0, 0)


@dataclass(slots=True, eq=False)
class Track:
    """One face over time. Times are monotonic seconds, frames are counted by the engine."""

    id: int
    box: Box
    last_seen: float
    views: deque[Encoding] = field(default_factory=lambda: deque(maxlen=VIEWS))
    """The last few looks, so that one turned or blurred view does not end the track."""
    template: Template | None = None
    confidence: float = 0.0
    best_score: float = 0.0
    """Of the best view that was encoded."""
    encoded_at: float = float("-inf")
    encoded_frame: int = -1
    detected_frame: int = -1
    missed: int = 0
    """Whole searches in a row that did not find it."""
    doubtful: bool = False
    """It was out of sight, changed its look, or may have been mixed up: its next view must be encoded."""

    def follow(self, bgr: npt.NDArray[np.uint8]) -> None:
        """Move to where this frame, (height, width, 3) BGR, looks most like the face; if nothing does, be doubtful."""
        if self.template:
            box, likeness = self.template.find(bgr, self.box)
            if likeness >= MIN_LIKENESS:
                self.box = box
            else:
                self.doubtful = True

    def distance(self, encoding: Encoding) -> float:
        return float(min((np.linalg.norm(view - encoding) for view in self.views), default=np.inf))


class Tracker:
    """Who is in view, and who was a moment ago.

    `memory_s`: how long a face may be out of sight and still be the same track. `first_id`: the first new track's
    number. `known`: tracks that may come back.
    """

    def __init__(self, memory_s: float, first_id: int = 1, known: Iterable[KnownTrack] = ()) -> None:
        self.memory_s = memory_s
        self._next_id = first_id
        self.in_view: list[Track] = []
        self._away = [Track(one.id, _NOWHERE, one.last_seen, deque(one.views, VIEWS), doubtful=True) for one in known]

    def reset(self) -> None:
        """Forget all tracks; numbers go on."""
        self.in_view, self._away = [], []

    def interrupt(self) -> None:
        """Frames were missed, so that place says nothing: who was in view may come back, known by looks alone."""
        for track in list(self.in_view):
            self.leave(track)
        for track in self._away:
            track.box, track.template, track.missed = _NOWHERE, None, 0

    def forget_old(self, now: float) -> None:
        self._away = [track for track in self._away if now - track.last_seen <= self.memory_s]

    def leave(self, track: Track) -> None:
        """The face is out of sight."""
        self.in_view.remove(track)
        track.doubtful = True
        self._away.append(track)

    def pair(self, boxes: Sequence[Box]) -> dict[int, Track]:
        """Which of these newly found boxes are faces in view, by place alone; by index into `boxes`.

        Where two faces are near each other, place says little: their tracks become doubtful.
        """
        pairs = [
            (box.iou(track.box), index, track)
            for index, box in enumerate(boxes)
            for track in self.in_view
            if box.iou(track.box) >= MIN_IOU
        ]
        found: dict[int, Track] = {}
        for _overlap, index, track in sorted(pairs, key=lambda pair: -pair[0]):
            if index not in found and track not in found.values():
                found[index] = track
        claims = [index for _, index, _ in pairs]
        wanted = [track.id for _, _, track in pairs]
        for _overlap, index, track in pairs:
            if claims.count(index) > 1 or wanted.count(track.id) > 1:
                track.doubtful = True
        return found

    def verify(self, track: Track, encoding: Encoding) -> bool:
        """Whether a track in view still looks like itself."""
        return track.distance(encoding) <= SAME_FACE

    def recall(self, box: Box, encoding: Encoding, now: float) -> Track:
        """The track of a face that was not in view: one of those that were a moment ago, or a new one."""
        best: Track | None = None
        nearest = np.inf
        for track in self._away:
            distance = track.distance(encoding)
            limit = SAME_FACE if box.iou(track.box) >= MIN_IOU else SURELY_SAME_FACE
            if distance <= limit and distance < nearest:
                best, nearest = track, distance
        if best is None:
            best = Track(self._next_id, box, now)
            self._next_id += 1
        else:
            self._away.remove(best)
        self.in_view.append(best)
        return best
