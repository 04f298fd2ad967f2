"""The frozen dataclasses that cross a boundary: between processes, into the store, out to the world."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Encoding = npt.NDArray[np.float32]
"""dlib's 128-D face descriptor, shape (128,)."""

Status = Literal["PASS", "REJECT", "NO_FACE"]
Reason = Literal["match", "unknown", "ambiguous", "not_allowed", "spoof", "lockout", "low_quality", "stale", "deciding"]
CameraState = Literal["starting", "ok", "lost", "ended"]


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in full-frame pixels; (x1, y1) is inside, (x2, y2) is just outside."""

    x1: int
    y1: int
    x2: int
    y2: int

    @property
    def width(self) -> int:
        return self.x2 - self.x1

    @property
    def height(self) -> int:
        return self.y2 - self.y1

    @property
    def area(self) -> int:
        return max(0, self.width) * max(0, self.height)

    def iou(self, other: Box) -> float:
        """Intersection over union, 0 to 1."""
        shared = Box(max(self.x1, other.x1), max(self.y1, other.y1), min(self.x2, other.x2), min(self.y2, other.y2))
        if shared.width <= 0 or shared.height <= 0:
            return 0.0
        return shared.area / (self.area + other.area - shared.area)

    def as_list(self) -> list[int]:
        return [self.x1, self.y1, self.x2, self.y2]


@dataclass(frozen=True, slots=True)
class Quality:
    """How good a view of a face is. `yaw` and `pitch` are ratios of the landmarks' distances, 0 is straight ahead."""

    size_px: int
    sharpness: float
    """Variance of the Laplacian of the aligned face, brought to a standard contrast."""
    brightness: float
    """Mean grey level, 0 to 255."""
    contrast: float
    """Standard deviation of the grey levels."""
    yaw: float
    pitch: float
    roll_deg: float


@dataclass(frozen=True, eq=False, slots=True)
class Face:
    """A face found in a photo. `confidence` is the detector's own score."""

    box: Box
    confidence: float
    encoding: Encoding
    quality: Quality
    flaws: tuple[str, ...] = ()
    """Why the photo is not fit for enrolment, each with its number; empty if it is."""
    thumbnail: bytes | None = None
    """JPEG of the face alone, where it was asked for."""


@dataclass(frozen=True, eq=False, slots=True)
class TrackedFace:
    """A face in a camera's frame. `track` is the same number as long as it is the same face.

    `encoding` and `quality` are None where nothing is to be learned from looking again.
    """

    box: Box
    confidence: float
    track: int
    encoding: Encoding | None = None
    quality: Quality | None = None
    thumbnail: bytes | None = None
    """JPEG of the face alone, where it was asked for and the face was encoded."""


@dataclass(frozen=True, eq=False, slots=True)
class KnownTrack:
    """A face that an earlier process followed, so that for the next one it is the same track."""

    id: int
    last_seen: float
    views: tuple[Encoding, ...]


@dataclass(frozen=True, eq=False, slots=True)
class FrameResult:
    """What the engine saw in one frame of one camera. It knows no names.

    `grabbed_at` is monotonic seconds (`Clock.monotonic`), `timestamp` Unix seconds, both taken at the grab.
    `epoch` changes when a clip starts again; `dropped` counts frames that newer ones replaced since the last result.
    """

    camera: str
    number: int
    epoch: int
    grabbed_at: float
    timestamp: float
    width: int
    height: int
    faces: tuple[TrackedFace, ...]
    stages_ms: dict[str, float]
    dropped: int = 0
    jpeg: bytes | None = None
    small_jpeg: bytes | None = None


@dataclass(frozen=True, slots=True)
class Person:
    """An enrolled person. `id` is an ASCII slug that never changes; `name` is what people read."""

    id: str
    name: str
    external_id: str | None = None
    faces: int = 0
    created_at: float = 0.0
    group: str | None = None
    """A word of the user's own; it decides nothing."""
    valid_from: float | None = None
    valid_until: float | None = None
    """Unix seconds; from then on not any more."""
    blocked: bool = False


@dataclass(frozen=True, slots=True)
class Match:
    """One probe against the gallery. All None when the gallery is empty; `margin` needs two people."""

    person: Person | None = None
    distance: float | None = None
    margin: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known about one face of one frame after the votes so far; what the stream shows."""

    box: Box
    track: int
    status: Status
    reason: Reason
    match: Match
    person: Person | None
    """Set only where the face was identified, also of somebody who is `not_allowed`; `match.person` is merely the most
    alike."""
    frames: int


@dataclass(frozen=True, slots=True)
class InView:
    """A face that is in view now, and what is known about it."""

    camera: str
    verdict: Verdict
    visitor: str | None = None
    """Id of the unknown visitor, where such are kept; the same at the next visit."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict that became final: at most one PASS and one REJECT a visit. This, and nothing else, may move a lock."""

    camera: str
    verdict: Verdict
    grabbed_at: float
    timestamp: float
    decided_at: float
    """Monotonic seconds."""


@dataclass(frozen=True, slots=True)
class Presence:
    camera: str
    present: bool
    persons: tuple[str, ...] = ()
    faces: int = 0
    since: float | None = None
    """Unix seconds at which the present (or absent) time began."""

    def payload(self) -> dict[str, Any]:
        return {"present": self.present, "persons": list(self.persons), "faces": self.faces, "since": self.since}


@dataclass(frozen=True, slots=True)
class CameraStatus:
    camera: str
    state: CameraState
    detail: str = ""


@dataclass(frozen=True, eq=False, slots=True)
class Snapshot:
    """A camera's picture as JPEG. `grabbed_at`: seconds of `Clock.monotonic`; `timestamp`: Unix seconds."""

    jpeg: bytes
    grabbed_at: float
    timestamp: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Whether a camera's recognition is off."""

    camera: str
    paused: bool


State = Presence | CameraStatus | Pause
"""What is told of a camera beside events."""


@dataclass(frozen=True, slots=True)
class Liveness:
    level: str = "off"
    result: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """The one schema for MQTT, webhook, WebSocket and API. Fields stand in the order in which they are sent."""

    type: str
    id: str
    seq: int
    """Per node, without gaps; 0 until the store has numbered it."""
    node: str
    camera: str
    status: Status
    reason: Reason
    name: str | None
    person_id: str | None
    external_id: str | None
    distance: float | None
    threshold: float | None
    margin: float | None
    score: float | None
    rule: str
    box: tuple[int, int, int, int]
    track: int
    frames: int
    timestamp: float
    expires_at: float
    latency_ms: float
    liveness: Liveness = field(default_factory=Liveness)
    demo: bool = False
    clock_synced: bool = True

    def numbered(self, seq: int) -> Event:
        return replace(self, seq=seq)

    def payload(self) -> dict[str, Any]:
        """The event as the JSON object of the contract."""
        body: dict[str, Any] = {
            "type": self.type,
            "id": self.id,
            "seq": self.seq,
            "node": self.node,
            "camera": self.camera,
            "status": self.status,
            "reason": self.reason,
            "name": self.name,
            "person_id": self.person_id,
            "external_id": self.external_id,
            "distance": rounded(self.distance, 4),
            "threshold": rounded(self.threshold, 4),
            "margin": rounded(self.margin, 4),
            "score": rounded(self.score, 4),
            "rule": self.rule,
            "box": list(self.box),
            "track": self.track,
            "frames": self.frames,
            "liveness": {"level": self.liveness.level, "result": self.liveness.result},
            "timestamp": round(self.timestamp, 3),
            "time": utc(self.timestamp),
            "expires_at": round(self.expires_at, 3),
            "latency_ms": round(self.latency_ms),
        }
        if self.demo:
            body["demo"] = True
        if not self.clock_synced:
            body["clock"] = "unsynced"
        return body


@dataclass(frozen=True, eq=False, slots=True)
class FrameView:
    """One processed frame as a viewer of the stream sees it."""

    node: str
    result: FrameResult
    verdicts: tuple[Verdict, ...]
    threshold: float
    expires_at: float
    latency_ms: float
    demo: bool = False
    clock_synced: bool = True

    def payload(self) -> dict[str, Any]:
        """The event's keys for the most prominent (largest) face, and `faces` for all; without the picture.

        `id` and `seq` are None: a frame is not an event.
        """
        first = max(self.verdicts, key=lambda verdict: verdict.box.area, default=None)
        body: dict[str, Any] = {"type": "face_event", "id": None, "seq": None, "node": self.node}
        body["camera"] = self.result.camera
        body |= _NO_FACE if first is None else self._face(first)
        body |= {
            "liveness": {"level": "off", "result": None},
            "timestamp": round(self.result.timestamp, 3),
            "time": utc(self.result.timestamp),
            "expires_at": round(self.expires_at, 3),
            "latency_ms": round(self.latency_ms),
            "width": self.result.width,
            "height": self.result.height,
            "faces": [self._face(verdict) for verdict in self.verdicts],
        }
        if self.demo:
            body["demo"] = True
        if not self.clock_synced:
            body["clock"] = "unsynced"
        return body

    def _face(self, verdict: Verdict) -> dict[str, Any]:
        person = verdict.person
        return {
            "status": verdict.status,
            "reason": verdict.reason,
            "name": person.name if person else None,
            "person_id": person.id if person else None,
            "external_id": person.external_id if person else None,
            "distance": rounded(verdict.match.distance, 4),
            "threshold": self.threshold,
            "margin": rounded(verdict.match.margin, 4),
            "score": None,
            "rule": "distance",
            "box": verdict.box.as_list(),
            "track": verdict.track,
            "frames": verdict.frames,
        }


_NO_FACE: dict[str, Any] = {
    "status": "NO_FACE",
    **dict.fromkeys(
        (
            "reason",
            "name",
            "person_id",
            "external_id",
            "distance",
            "threshold",
            "margin",
            "score",
            "rule",
            "box",
            "track",
        )
    ),
    "frames": 0,
}


def rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def utc(timestamp: float) -> str:
    """Unix seconds as ISO 8601 in UTC with milliseconds, e.g. 2025-01-09T05:20:00.123Z."""
    return datetime.fromtimestamp(round(timestamp, 3), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def uuid7(timestamp: float) -> str:
    """A time-ordered identifier (RFC 9562, section 5.7) from Unix seconds and 74 random bits."""
    millis = int(timestamp * 1000) & (1 << 48) - 1
    rand = int.from_bytes(os.urandom(10), "big")
    value = millis << 80 | 0x7 << 76 | (rand >> 68 & 0xFFF) << 64 | 0b10 << 62 | rand & (1 << 62) - 1
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
