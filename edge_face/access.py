"""FrameResults to Decisions: votes, margin, visits, cooldown, presence. A pure state machine; time comes in as numbers.

A *vote* is what one frame says of one track. A track is identified when, of its last `frames + 1` votes, `frames` name
one person and none names another. A *visit* is a track, or the tracks of one person with gaps under
`presence_timeout`; it has one PASS per person and at most one REJECT.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edge_face import settings
from edge_face.events import Decision, Face, FrameResult, Match, Person, Presence, Reason, Verdict


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a frame, or the passing of time, led to. `presence` is None while nothing changed."""

    verdicts: tuple[Verdict, ...]
    decisions: tuple[Decision, ...]
    presence: Presence | None


@dataclass(frozen=True, slots=True)
class _Vote:
    reason: Reason
    person: Person | None
    at: float
    frame: int
    """Count of judged frames when it was cast."""


@dataclass(slots=True, eq=False)
class _Visit:
    passed: set[str] = field(default_factory=set)
    """Ids of the people who had their PASS in this visit."""
    rejected: bool = False


@dataclass(slots=True, eq=False)
class _Track:
    votes: deque[_Vote]
    last: tuple[FrameResult, Face, Match]
    last_seen: float
    visit: _Visit = field(default_factory=_Visit)
    frames: int = 0
    person: Person | None = None
    """Whom the votes identified last."""


@dataclass(slots=True, eq=False)
class _Known:
    """What is remembered of a person who was identified."""

    visit: _Visit
    last_seen: float
    passed_at: float = float("-inf")


class Access:
    """Decides for one camera. All times are monotonic seconds, but for timestamps, which are only passed on."""

    def __init__(self, options: settings.Decision) -> None:
        self._options = options
        self._window = options.frames + 1
        # Early enough that the REJECT of a face that left is still decided inside max_age.
        self._gone_after_s = min(options.max_age, options.presence_timeout) / 2
        self._tracks: dict[int, _Track] = {}
        self._known: dict[str, _Known] = {}
        self._judged = 0
        self._epoch = 0
        self._presence: Presence | None = None

    def observe(self, result: FrameResult, matches: Sequence[Match], now: float) -> Outcome:
        """Judge one frame at time `now`; `matches` belong to `result.faces`."""
        decisions: list[Decision] = []
        if result.epoch != self._epoch:
            decisions += self.end_visits(now)
            self._epoch = result.epoch
        self._judged += 1
        verdicts = []
        for face, match in zip(result.faces, matches, strict=True):
            track = self._track(result, face, match, now)
            verdict = self._judge(track, now)
            verdicts.append(verdict)
            if self._is_final(track, verdict, now):
                decisions.append(_decision(verdict, result, now))
        seen = {face.track for face in result.faces}
        decisions += [
            decision
            for id, track in self._tracks.items()
            if id not in seen and now - track.last[0].grabbed_at > self._gone_after_s
            for decision in self._gone(track, now)
        ]
        return Outcome(tuple(verdicts), tuple(decisions), self._presence_change(result.camera, result.timestamp, now))

    def tick(self, camera: str, timestamp: float, now: float) -> Outcome:
        """Time passes without a frame: visits end, presence clears."""
        silent = [track for track in self._tracks.values() if now - track.last_seen >= self._options.presence_timeout]
        decisions = [decision for track in silent for decision in self._gone(track, now)]
        return Outcome((), tuple(decisions), self._presence_change(camera, timestamp, now))

    def end_visits(self, now: float) -> list[Decision]:
        """The scene is over (a clip ended, or starts again): every face is gone. Cooldowns stay."""
        decisions = [decision for track in self._tracks.values() for decision in self._gone(track, now)]
        self._tracks.clear()
        for known in self._known.values():
            known.last_seen = float("-inf")
        return decisions

    def people_changed(self, people: Mapping[str, Person]) -> None:
        """After the gallery changed: who is no longer in it is nobody's vote, identity or presence any more."""
        self._known = {id: known for id, known in self._known.items() if id in people}
        for track in self._tracks.values():
            if any(vote.person and people.get(vote.person.id) is None for vote in track.votes):
                track.votes.clear()
            track.person = people.get(track.person.id) if track.person else None

    def _track(self, result: FrameResult, face: Face, match: Match, now: float) -> _Track:
        """The face's track with this frame's vote added."""
        track = self._tracks.get(face.track)
        if track is None:
            track = _Track(deque(maxlen=self._window), (result, face, match), now)
            self._tracks[face.track] = track
        track.last, track.last_seen = (result, face, match), now
        track.frames += 1
        # A vote from before a gap is no support for whoever stands there now.
        while track.votes and self._judged - track.votes[0].frame >= 2 * self._window:
            track.votes.popleft()
        track.votes.append(self._vote(result, match, now))
        return track

    def _vote(self, result: FrameResult, match: Match, now: float) -> _Vote:
        options, person = self._options, None
        reason: Reason
        if not 0 <= now - result.grabbed_at <= options.max_age:
            reason = "stale"
        elif match.person is None or match.distance is None or not match.distance <= options.threshold:
            reason = "unknown"
        elif match.margin is not None and not match.margin >= options.margin:
            reason = "ambiguous"
        else:
            reason, person = "match", match.person
        return _Vote(reason, person, now, self._judged)

    def _judge(self, track: _Track, now: float) -> Verdict:
        """The verdict after the newest vote: PASS when it is, or already was, given in this visit."""
        newest, options = track.votes[-1], self._options
        named = Counter(vote.person.id for vote in track.votes if vote.person)
        identified = newest.person is not None and len(named) == 1 and named.total() >= options.frames
        if identified and newest.person:
            self._recognise(track, newest.person, now)
        elif track.person:
            self._known[track.person.id].last_seen = now
        person = track.person
        if person and newest.reason != "stale" and set(named) == {person.id}:
            cooling = now - self._known[person.id].passed_at < options.cooldown
            if person.id in track.visit.passed or (identified and not cooling):
                return _verdict(track, "match", person)
            return _verdict(track, "deciding", None)
        if len(track.votes) < self._window:
            return _verdict(track, "deciding", None)
        return _verdict(track, _why_not(track), None)

    def _recognise(self, track: _Track, person: Person, now: float) -> None:
        """The track is `person`'s: it joins the person's visit, or begins one."""
        track.person = person
        known = self._known.get(person.id)
        if known is None:
            known = self._known[person.id] = _Known(track.visit, now)
        elif now - known.last_seen < self._options.presence_timeout:
            known.visit.rejected |= track.visit.rejected
            track.visit = known.visit
        else:
            known.visit = track.visit = _Visit() if person.id in track.visit.passed else track.visit
        known.last_seen = now

    def _is_final(self, track: _Track, verdict: Verdict, now: float) -> bool:
        """Whether this verdict is the visit's PASS of that person, or its REJECT; it is remembered that it was."""
        visit = track.visit
        if verdict.person:
            if verdict.person.id in visit.passed:
                return False
            visit.passed.add(verdict.person.id)
            self._known[verdict.person.id].passed_at = now
            return True
        if verdict.reason == "deciding" or visit.passed or visit.rejected:
            return False
        visit.rejected = True
        return True

    def _gone(self, track: _Track, now: float) -> list[Decision]:
        """The REJECT of a face that left before its votes were full."""
        result = track.last[0]
        expected = any(vote.person and self._in_visit(vote.person, vote.at) for vote in track.votes)
        if track.visit.passed or track.visit.rejected or expected:
            return []
        track.visit.rejected = True
        late = now - result.grabbed_at > self._options.max_age
        return [_decision(_verdict(track, "stale" if late else _why_not(track), None), result, now)]

    def _in_visit(self, person: Person, at: float) -> bool:
        """Whether the person had passed and was still here then, so that a glimpse of them is no visit of its own."""
        known = self._known.get(person.id)
        timeout = self._options.presence_timeout
        return known is not None and person.id in known.visit.passed and at - known.last_seen < timeout

    def _presence_change(self, camera: str, timestamp: float, now: float) -> Presence | None:
        timeout = self._options.presence_timeout
        self._tracks = {id: track for id, track in self._tracks.items() if now - track.last_seen < timeout}
        names = {track.person.name for track in self._tracks.values() if track.person}
        state = (bool(self._tracks), tuple(sorted(names)), len(self._tracks))
        old = self._presence or Presence(camera, False)
        if state == (old.present, old.persons, old.faces):
            return None
        since = old.since if old.present == state[0] else timestamp
        self._presence = Presence(camera, *state, since=since)
        return self._presence


def _why_not(track: _Track) -> Reason:
    """The commonest reason among the votes that name nobody; with none such, the face was seen too briefly."""
    if len({vote.person.id for vote in track.votes if vote.person}) > 1:
        return "ambiguous"
    reasons = Counter(vote.reason for vote in track.votes if vote.person is None)
    return reasons.most_common(1)[0][0] if reasons else "unknown"


def _verdict(track: _Track, reason: Reason, person: Person | None) -> Verdict:
    _result, face, match = track.last
    return Verdict(face.box, face.track, "PASS" if person else "REJECT", reason, match, person, track.frames)


def _decision(verdict: Verdict, result: FrameResult, now: float) -> Decision:
    return Decision(result.camera, verdict, result.grabbed_at, result.timestamp, now)
