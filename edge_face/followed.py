"""Whom a camera's child follows, for its successor."""

from __future__ import annotations

from collections import deque

from edge_face.events import Encoding, FrameResult, KnownTrack
from edge_face.vision.track import VIEWS

_MOST = 100


class Followed:
    """The faces that a camera's child follows, so that its successor knows them again and nobody is decided twice."""

    def __init__(self) -> None:
        self._tracks: dict[int, tuple[float, deque[Encoding]]] = {}
        self._epoch = 0

    def add(self, result: FrameResult) -> None:
        if result.epoch != self._epoch:
            self._tracks, self._epoch = {}, result.epoch
        for face in result.faces:
            _seen, views = self._tracks.pop(face.track, (0.0, deque(maxlen=VIEWS)))
            if face.encoding is not None:
                views.append(face.encoding)
            self._tracks[face.track] = (result.grabbed_at, views)  # so the newest stand last
        while len(self._tracks) > _MOST:
            del self._tracks[next(iter(self._tracks))]

    def since(self, when: float) -> tuple[KnownTrack, ...]:
        """Those that were seen after that time."""
        return tuple(
            KnownTrack(id, at, tuple(views)) for id, (at, views) in self._tracks.items() if views and at > when
        )
