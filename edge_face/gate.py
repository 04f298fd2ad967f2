"""One camera's way from what was seen to what is told: match, decide, build the event, show the frame."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from edge_face import settings
from edge_face.access import Access, Outcome
from edge_face.bus import Bus
from edge_face.clock import Clock
from edge_face.events import (
    CameraStatus,
    Decision,
    Event,
    FrameResult,
    FrameView,
    InView,
    Match,
    State,
    Verdict,
    uuid7,
)
from edge_face.gallery import Gallery
from edge_face.metrics import Meter

_log = logging.getLogger(__name__)


def _nothing(*_: object) -> None:
    """Nobody wants to know."""


class Gate:
    """Runs on the event loop and never waits: matching costs microseconds, everything slow is handed on.

    `announce` gets each event with its deadline (monotonic seconds); `on_state` gets presence and camera changes;
    `on_settled` gets the tracks in view that need no further look. `on_judged` gets each frame with what its faces are
    like and what was said of them, before `on_decision` gets the decisions.
    """

    def __init__(
        self,
        node: str,
        camera: str,
        options: settings.Decision,
        clock: Clock,
        views: Bus[FrameView],
        announce: Callable[[Event, float], None],
        on_state: Callable[[State], None],
        on_settled: Callable[[frozenset[int]], None],
        *,
        clock_synced: Callable[[], bool],
        demo: bool = False,
        on_judged: Callable[[FrameResult, Sequence[Match | None], Sequence[Verdict]], None] = _nothing,
        on_decision: Callable[[Decision], None] = _nothing,
    ) -> None:
        self._node = node
        self.camera = camera
        self._options = options
        self._clock = clock
        self._access = Access(options)
        self._views = views
        self._announce = announce
        self._on_state = on_state
        self._on_settled = on_settled
        self._settled: frozenset[int] = frozenset()
        self._clock_synced = clock_synced
        self._demo = demo
        self._on_judged = on_judged
        self._on_decision = on_decision
        self._gallery = Gallery.empty()
        self.paused = False
        self._in_view: tuple[Verdict, ...] = ()
        self._in_view_at = float("-inf")
        self.meter = Meter()
        self.decisions: Counter[str] = Counter()

    def use_gallery(self, gallery: Gallery) -> None:
        self._gallery = gallery
        self._access.people_changed({person.id: person for person in gallery.persons})
        self._look_anew()

    def use(self, options: settings.Decision) -> None:
        """Other rules of decision, from the next frame on."""
        self._options = options
        self._access.use(options)
        self._look_anew()

    def pause(self, paused: bool) -> None:
        """Recognition off or on. Whoever is in view is nobody then, and nothing is told of them; later they are new."""
        if paused and not self.paused:
            self._access.end_visits(self._clock.monotonic())
            self.paused = paused
            self.tick()
        self.paused = paused

    def on_frame(self, result: FrameResult) -> None:
        if self.paused and result.faces:  # of before the child heard of it
            result = replace(result, faces=())
        found = iter(self._gallery.match([face.encoding for face in result.faces if face.encoding is not None]))
        matches = [None if face.encoding is None else next(found) for face in result.faces]
        now = self._clock.monotonic()
        date = self._clock.wall() if self._clock_synced() else None
        outcome = self._access.observe(result, matches, now, date)
        self._on_judged(result, matches, outcome.verdicts)
        if outcome.settled != self._settled:
            self._settled = outcome.settled
            self._on_settled(outcome.settled)
        self._tell(outcome)
        if outcome.verdicts:
            self._in_view, self._in_view_at = outcome.verdicts, result.grabbed_at
        self.meter.frame(result, now)
        if self._views.watched:
            self._views.send(
                FrameView(
                    node=self._node,
                    result=result,
                    verdicts=outcome.verdicts,
                    threshold=self._options.threshold,
                    expires_at=result.timestamp + self._options.event_ttl,
                    latency_ms=(now - result.grabbed_at) * 1000,
                    demo=self._demo,
                    clock_synced=self._clock_synced(),
                )
            )

    def in_view(self) -> tuple[InView, ...]:
        """The faces of the newest frame that shows any, as long as it is one of now; a camera that is lost shows none.

        Not of the newest frame alone: a detector misses a face now and then.
        """
        if self._clock.monotonic() - self._in_view_at > self._options.max_age:
            self._in_view = ()
        return tuple(InView(self.camera, verdict) for verdict in self._in_view)

    def remember(self, person_id: str, passed_at: float) -> None:
        """A PASS from before a restart (monotonic seconds)."""
        self._access.remember(person_id, passed_at)

    def on_camera(self, status: CameraStatus) -> None:
        if status.state in ("lost", "starting"):
            self._access.interrupted()
        if status.state == "ended":
            for decision in self._access.end_visits(self._clock.monotonic()):
                self._decided(decision)
            self.tick()
        self._on_state(status)

    def tick(self) -> None:
        """To be called a few times a second, so that visits end and presence clears without frames, too."""
        self._tell(self._access.tick(self.camera, self._clock.wall(), self._clock.monotonic()))

    def _look_anew(self) -> None:
        self._settled = frozenset()
        self._on_settled(self._settled)

    def _tell(self, outcome: Outcome) -> None:
        for decision in outcome.decisions:
            self._decided(decision)
        if outcome.presence:
            self._on_state(outcome.presence)

    def _decided(self, decision: Decision) -> None:
        self.decisions[decision.verdict.reason] += 1
        self._on_decision(decision)
        self._announce(self._event(decision), decision.grabbed_at + self._options.event_ttl)

    def _event(self, decision: Decision) -> Event:
        verdict, box = decision.verdict, decision.verdict.box
        person = verdict.person
        return Event(
            type="face_event",
            id=uuid7(decision.timestamp),
            seq=0,
            node=self._node,
            camera=decision.camera,
            status=verdict.status,
            reason=verdict.reason,
            name=person.name if person else None,
            person_id=person.id if person else None,
            external_id=person.external_id if person else None,
            distance=verdict.match.distance,
            threshold=self._options.threshold,
            margin=verdict.match.margin,
            score=None,
            rule="distance",
            box=(box.x1, box.y1, box.x2, box.y2),
            track=verdict.track,
            frames=verdict.frames,
            timestamp=decision.timestamp,
            expires_at=decision.timestamp + self._options.event_ttl,
            latency_ms=(decision.decided_at - decision.grabbed_at) * 1000,
            demo=self._demo,
            clock_synced=self._clock_synced(),
        )
