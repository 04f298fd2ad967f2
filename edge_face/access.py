"""FrameResults to Decisions: votes, margin, rules, visits, cooldown, presence. A pure state machine; time comes in as
numbers.

A *vote* is what one frame says of one track. A track is identified when, of its last `frames + 1` votes, `frames` name
one person and none names another. A *visit* is a track, or the tracks of one person with gaps under
`presence_timeout`; it has one PASS per person and at most one REJECT.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edge_face import settings
from edge_face.events import Decision, FrameResult, Match, Person, Presence, Reason, Status, TrackedFace, Verdict


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a frame, or the passing of time, led to. `presence` is None while nothing changed."""

    verdicts: tuple[Verdict, ...]
    decisions: tuple[Decision, ...]
    presence: Presence | None
    settled: frozenset[int] = frozenset()
    """The frame's tracks of which another look can change nothing, unless somebody else stands there."""


@dataclass(frozen=True, slots=True)
class _Vote:
    reason: Reason
    person: Person | None
    at: float


@dataclass(slots=True, eq=False)
class _Visit:
    passed: set[str] = field(default_factory=set)
    """Ids of the people who had their PASS in this visit."""
    rejected: bool = False


@dataclass(slots=True, eq=False)
class _Track:
    votes: deque[_Vote]
    last: tuple[FrameResult, TrackedFace]
    last_seen: float
    last_judged: int
    """Count of judged frames when it was last in one."""
    match: Match = field(default_factory=Match)
    """Of its newest encoding."""
    visit: _Visit = field(default_factory=_Visit)
    frames: int = 0
    person: Person | None = None
    """Whom the votes identified last."""
    settled: bool = False


@dataclass(slots=True, eq=False)
class _Known:
    """What is remembered of a person who was identified."""

    visit: _Visit
    last_seen: float
    passed_at: float = float("-inf")


def judge(match: Match, options: settings.Decision) -> Reason:
    """What one look says by itself: `match`, `ambiguous` or `unknown`. NaN is no match."""
    if match.person is None or match.distance is None or not match.distance <= options.threshold:
        return "unknown"
    if match.margin is not None and not match.margin >= options.margin:
        return "ambiguous"
    return "match"


def is_allowed(person: Person, date: float | None) -> bool:
    """Whether a person who was identified may pass. `date`: Unix seconds; None: nobody knows what time it is.

    Then whoever may pass at some times only may not. Comparisons are so that NaN allows nothing.
    """
    if person.blocked:
        return False
    if person.valid_from is None and person.valid_until is None:
        return True
    if date is None:
        return False
    begun = person.valid_from is None or person.valid_from <= date
    return begun and (person.valid_until is None or date < person.valid_until)


class Access:
    """Decides for one camera. All times are monotonic seconds, but for timestamps, which are only passed on."""

    def __init__(self, options: settings.Decision) -> None:
        self._tracks: dict[int, _Track] = {}
        self.use(options)
        self._known: dict[str, _Known] = {}
        self._judged = 0
        self._epoch = 0
        self._presence: Presence | None = None

    def use(self, options: settings.Decision) -> None:
        """Other rules from now on. Votes by the old ones do not count any more; visits and cooldowns stay."""
        self._options = options
        self._window = options.frames + 1
        # Early enough that the REJECT of a face that left is still decided inside max_age.
        self._gone_after_s = min(options.max_age, options.presence_timeout) / 2
        for track in self._tracks.values():
            track.votes = deque(maxlen=self._window)
            track.settled = False

    def observe(
        self, result: FrameResult, matches: Sequence[Match | None], now: float, date: float | None = None
    ) -> Outcome:
        """Judge one frame at time `now`; `matches` belong to `result.faces`, None where a face was not encoded.

        `date`: the wall clock, Unix seconds; None while it is not synchronised.
        """
        decisions: list[Decision] = []
        if result.epoch != self._epoch:
            decisions += self.end_visits(now)
            self._epoch = result.epoch
        self._judged += 1
        verdicts = []
        for face, match in zip(result.faces, matches, strict=True):
            track = self._track(result, face, match, now)
            if match is not None:
                self._recognise(track, now)
            if track.person:
                self._known[track.person.id].last_seen = track.last_seen
            verdict = self._verdict(track, now, date, fresh_vote=match is not None)
            verdicts.append(verdict)
            if match is not None:
                if self._is_final(track, verdict, now):
                    decisions.append(_decision(verdict, result, now))
                track.settled = self._is_settled(track, verdict)
        seen = {face.track for face in result.faces}
        decisions += [
            decision
            for id, track in self._tracks.items()
            if id not in seen and now - track.last[0].grabbed_at > self._gone_after_s
            for decision in self._gone(track, now)
        ]
        settled = frozenset(id for id in seen if self._tracks[id].settled)
        presence = self._presence_change(result.camera, result.timestamp, now)
        return Outcome(tuple(verdicts), tuple(decisions), presence, settled)

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

    def remember(self, person_id: str, passed_at: float) -> None:
        """A PASS from before a restart: it still counts for the visit and the cooldown."""
        self._known[person_id] = _Known(_Visit({person_id}), passed_at, passed_at)

    def interrupted(self) -> None:
        """Frames were missed. Visits go on; votes from before are no support for whoever stands there then."""
        self._judged += self._window + 1

    def people_changed(self, people: Mapping[str, Person]) -> None:
        """After the gallery changed: who is no longer in it is nobody's vote, identity or presence any more.

        Votes for somebody of whom anything changed (a face, the name, a rule) do not count any more, either.
        """
        self._known = {id: known for id, known in self._known.items() if id in people}
        for track in self._tracks.values():
            track.settled = False
            if any(vote.person and people.get(vote.person.id) != vote.person for vote in track.votes):
                track.votes.clear()
            track.person = people.get(track.person.id) if track.person else None
            track.visit.passed &= people.keys()  # so that who was removed and still stands there is told as unknown

    def _track(self, result: FrameResult, face: TrackedFace, match: Match | None, now: float) -> _Track:
        """The face's track with this frame's vote, if the face was encoded, added."""
        seen_at = min(result.grabbed_at, now)
        track = self._tracks.get(face.track)
        if track is None:
            track = _Track(deque(maxlen=self._window), (result, face), seen_at, self._judged)
            self._tracks[face.track] = track
        if self._judged - track.last_judged > self._window:
            track.votes.clear()  # a vote from before a gap is no support for whoever stands there now
        track.last, track.last_seen, track.last_judged = (result, face), seen_at, self._judged
        track.frames += 1
        if match is not None:
            track.match = match
            track.votes.append(self._vote(result, match, now))
        return track

    def _is_stale(self, result: FrameResult, now: float) -> bool:
        return not 0 <= now - result.grabbed_at <= self._options.max_age

    def _vote(self, result: FrameResult, match: Match, now: float) -> _Vote:
        reason = "stale" if self._is_stale(result, now) else judge(match, self._options)
        person = match.person if reason == "match" else None
        return _Vote(reason, person, now)

    def _recognise(self, track: _Track, now: float) -> None:
        """Whose track it is, after its newest vote; an identified track joins the person's visit, or begins one."""
        person = self._identified(track)
        if person is None:
            return
        track.person = person
        known = self._known.get(person.id)
        if known is None:
            known = self._known[person.id] = _Known(track.visit, now)
        elif now - known.last_seen < self._options.presence_timeout:
            known.visit.rejected |= track.visit.rejected
            track.visit = known.visit
        else:
            known.visit = track.visit = _Visit() if person.id in track.visit.passed else track.visit

    def _identified(self, track: _Track) -> Person | None:
        """The person of the newest vote, if enough of the others name them and none names another."""
        named = [vote.person.id for vote in track.votes if vote.person]
        person = track.votes[-1].person
        return person if person and len(set(named)) == 1 and len(named) >= self._options.frames else None

    def _verdict(self, track: _Track, now: float, date: float | None, *, fresh_vote: bool) -> Verdict:
        """What the votes come to: PASS when it is, or already was, given in this visit, and still may be."""
        if not track.votes:
            return _verdict(track, "deciding", None)
        person, named = track.person, {vote.person.id for vote in track.votes if vote.person}
        if self._is_stale(track.last[0], now):
            return _verdict(track, "stale" if len(track.votes) == self._window else "deciding", None)
        if person and named == {person.id}:
            if not is_allowed(person, date):
                track.visit.passed.discard(person.id)  # so that whoever loses the right to pass while here is told of
                return _verdict(track, "not_allowed", person)
            cooling = now - self._known[person.id].passed_at < self._options.cooldown
            may_pass = fresh_vote and self._identified(track) is not None and not cooling
            if person.id in track.visit.passed or may_pass:
                return _verdict(track, "match", person)
            return _verdict(track, "deciding", None)
        if len(track.votes) < self._window:
            return _verdict(track, "deciding", None)
        return _verdict(track, _why_not(track), None)

    def _is_final(self, track: _Track, verdict: Verdict, now: float) -> bool:
        """Whether this verdict is the visit's PASS of that person, or its REJECT; it is remembered that it was."""
        visit = track.visit
        if verdict.person and verdict.status == "PASS":
            if verdict.person.id in visit.passed:
                return False
            visit.passed.add(verdict.person.id)
            self._known[verdict.person.id].passed_at = now
            return True
        # After a PASS a face that cannot be told is a head that turned away, but who may not pass is somebody else.
        if verdict.reason == "deciding" or visit.rejected or (visit.passed and verdict.reason != "not_allowed"):
            return False
        visit.rejected = True
        return True

    def _is_settled(self, track: _Track, verdict: Verdict) -> bool:
        """Not while the newest look contradicts what is shown: then the next ones must decide, and soon."""
        newest = track.votes[-1].person
        if newest is None:
            agrees = verdict.person is None
        elif verdict.reason == "not_allowed":
            agrees = verdict.person is not None and verdict.person.id == newest.id
        else:
            agrees = newest.id in track.visit.passed
        return agrees and verdict.reason not in ("deciding", "stale")

    def _gone(self, track: _Track, now: float) -> list[Decision]:
        """The REJECT of a face that left before its votes were full."""
        result = track.last[0]
        expected = any(vote.person and self._in_visit(vote.person, vote.at) for vote in track.votes)
        if track.person or track.visit.passed or track.visit.rejected or expected:
            return []
        track.visit.rejected = True
        late = now - result.grabbed_at > self._options.max_age
        return [_decision(_verdict(track, "stale" if late else _why_not(track), None), result, now)]

    def _in_visit(self, person: Person, at: float) -> bool:
        """Whether the person was still here then, and decided upon: then a glimpse of them is no visit of its own."""
        known = self._known.get(person.id)
        timeout = self._options.presence_timeout
        if known is None or at - known.last_seen >= timeout:
            return False
        return person.id in known.visit.passed or known.visit.rejected

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
    _result, face = track.last
    status: Status = "PASS" if person and reason == "match" else "REJECT"
    return Verdict(face.box, face.track, status, reason, track.match, person, track.frames)


def _decision(verdict: Verdict, result: FrameResult, now: float) -> Decision:
    return Decision(result.camera, verdict, result.grabbed_at, result.timestamp, now)
