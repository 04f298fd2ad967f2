"""What stands where on the broker: the topics, and the payloads that are no events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from edge_face.events import CameraStatus, Pause, Presence, State
from edge_face.slugs import slug

# An ended clip gives no pictures any more, like a camera that is lost. One that starts has no state yet; until it has,
# what was said last stands.
_CAMERA_STATES = {"ok": "ok", "lost": "lost", "ended": "lost"}


class Topics:
    """The topics of a node."""

    def __init__(self, node: str) -> None:
        self.client_id = f"edge-face-{slug(node)}"
        self.base = f"edge-face/{slug(node)}"
        self.status = f"{self.base}/status"
        self.stats = f"{self.base}/stats"

    def of(self, camera: str, leaf: str) -> str:
        return f"{self.base}/{slug(camera)}/{leaf}"

    def message(self, change: State) -> tuple[str, bytes] | None:
        """Topic and payload of a state; None: nothing is told of it."""
        if isinstance(change, Pause):
            return self.of(change.camera, "paused"), b"ON" if change.paused else b"OFF"
        if isinstance(change, Presence):
            return self.of(change.camera, "presence"), as_json(change.payload())
        assert isinstance(change, CameraStatus)
        if change.state not in _CAMERA_STATES:
            return None
        return self.of(change.camera, "camera"), _CAMERA_STATES[change.state].encode()


def stats(status: Mapping[str, Any]) -> dict[str, Any]:
    """From `Daemon.status`: a few numbers for a dashboard. Cameras go by their topic level.

    `fps` is that of all cameras together, `latency_ms` the median of the slowest one.
    """
    cameras = {
        slug(camera["id"]): {"fps": camera["fps"], "latency_ms": (camera["latency_ms"] or {}).get("p50")}
        for camera in status["cameras"]
    }
    return {
        "version": status["version"],
        "clock": status["clock"],
        "uptime_s": status["uptime_s"],
        "temperature": status["board"]["temperature_c"],
        "gallery": {"people": status["people"], "faces": status["faces"]},
        "fps": round(sum(camera["fps"] for camera in cameras.values()), 1),
        "latency_ms": max((c["latency_ms"] for c in cameras.values() if c["latency_ms"] is not None), default=None),
        "cameras": cameras,
    }


def nobody(since: float | None = None) -> bytes:
    return as_json(Presence("", False, since=since).payload())


def as_json(payload: Mapping[str, Any]) -> bytes:
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
