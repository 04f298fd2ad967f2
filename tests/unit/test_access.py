"""The decision rules, on made-up frames and a clock that the test turns."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from edge_face import settings
from edge_face.access import Access, Outcome, is_allowed
from edge_face.events import Box, Decision, FrameResult, Match, Person, Presence, TrackedFace

KATYA = Person("katya", "Katya", "7")
ZERO = Person("zero", "Zero")
STRANGER = Match(KATYA, 0.7, 0.1)
UNSURE = Match(KATYA, 0.44, 0.01)


def is_(person: Person) -> Match:
    return Match(person, 0.3, 0.2)


@dataclass
class Scene:
    """Feeds frames 0.1 s apart into an Access and keeps what came out."""

    access: Access
    now: float = 1000.0
    number: int = 0
    epoch: int = 0
    step_s: float = 0.1
    date: float | None = None
    """The wall clock."""
    decisions: list[Decision] = field(default_factory=list)
    presences: list[Presence] = field(default_factory=list)

    def frame(self, *faces: tuple[int, Match | None], age_s: float = 0.05) -> Outcome:
        self.now += self.step_s
        self.number += 1
        seen = tuple(TrackedFace(Box(10 * track, 0, 10 * track + 100, 100), 1.0, track) for track, _ in faces)
        grabbed_at = self.now - age_s
        result = FrameResult("front", self.number, self.epoch, grabbed_at, grabbed_at + 5e5, 640, 480, seen, {})
        return self._keep(self.access.observe(result, [match for _, match in faces], self.now, self.date))

    def frames(self, count: int, *faces: tuple[int, Match | None]) -> None:
        for _ in range(count):
            self.frame(*faces)

    def nobody(self, seconds: float) -> None:
        self.frames(round(seconds / self.step_s))

    def silence(self, seconds: float) -> None:
        """Time passes and no frame comes."""
        self.now += seconds
        self._keep(self.access.tick("front", self.now + 5e5, self.now))

    def _keep(self, outcome: Outcome) -> Outcome:
        self.decisions += outcome.decisions
        if outcome.presence:
            self.presences.append(outcome.presence)
        return outcome

    @property
    def told(self) -> list[tuple[str, str, str | None]]:
        verdicts = [decision.verdict for decision in self.decisions]
        return [(v.status, v.reason, v.person.name if v.person else None) for v in verdicts]


def scene(*, date: float | None = None, **options: float) -> Scene:
    return Scene(Access(settings.Decision(**options)), date=date)  # type: ignore[arg-type]


PASS_KATYA = ("PASS", "match", "Katya")
PASS_ZERO = ("PASS", "match", "Zero")
UNKNOWN = ("REJECT", "unknown", None)


def test_two_agreeing_frames_make_one_pass_for_the_whole_visit() -> None:
    s = scene()
    first = s.frame((1, is_(KATYA)))
    assert first.verdicts[0].reason == "deciding"
    assert first.verdicts[0].person is None
    second = s.frame((1, is_(KATYA)))
    assert second.verdicts[0].status == "PASS"
    s.frames(300, (1, is_(KATYA)))
    assert s.told == [PASS_KATYA]


def test_one_lucky_frame_of_a_stranger_does_not_pass() -> None:
    s = scene()
    for _ in range(20):
        s.frame((1, is_(KATYA)))
        s.frame((1, STRANGER))
        s.frame((1, STRANGER))
    assert s.told == [UNKNOWN]


def test_votes_for_two_people_do_not_pass_either() -> None:
    s = scene()
    for _ in range(10):
        s.frame((1, is_(KATYA)))
        s.frame((1, is_(ZERO)))
    assert s.told == [("REJECT", "ambiguous", None)]


def test_unknown_is_told_once_a_visit_and_a_pass_may_follow() -> None:
    s = scene()
    s.frames(30, (1, STRANGER))
    s.frames(5, (1, is_(KATYA)))
    s.frames(30, (1, STRANGER))
    assert s.told == [UNKNOWN, PASS_KATYA]


def test_too_close_to_a_second_person_is_ambiguous() -> None:
    s = scene()
    s.frames(9, (1, UNSURE))
    assert s.told == [("REJECT", "ambiguous", None)]


def test_an_empty_gallery_makes_everybody_unknown() -> None:
    s = scene()
    s.frames(9, (1, Match()))
    assert s.told == [UNKNOWN]
    assert s.decisions[0].verdict.match.distance is None


@pytest.mark.parametrize("distance", [float("nan"), float("inf"), 0.4500001])
def test_distances_that_are_not_under_the_threshold_never_pass(distance: float) -> None:
    s = scene()
    s.frames(9, (1, Match(KATYA, distance, 0.5)))
    assert s.told == [UNKNOWN]


def test_a_frame_over_max_age_is_stale_and_no_vote() -> None:
    s = scene()
    for _ in range(9):
        s.frame((1, is_(KATYA)), age_s=1.2)
    assert s.told == [("REJECT", "stale", None)]
    s.frames(2, (1, is_(KATYA)))
    assert s.told[1:] == [PASS_KATYA]


def test_a_grab_in_the_future_is_not_trusted() -> None:
    s = scene()
    for _ in range(9):
        s.frame((1, is_(KATYA)), age_s=-0.5)
    assert s.told == [("REJECT", "stale", None)]


def test_the_stream_says_reject_for_a_stale_frame_of_who_has_passed() -> None:
    s = scene()
    s.frames(3, (1, is_(KATYA)))
    late = s.frame((1, is_(KATYA)), age_s=1.2)
    assert late.verdicts[0].status == "REJECT"
    assert late.verdicts[0].person is None


def test_a_face_that_leaves_early_is_rejected_once_it_is_gone_and_still_fresh() -> None:
    s = scene()
    s.frame((1, STRANGER))
    assert s.told == []
    s.nobody(2)
    assert s.told == [UNKNOWN]
    decision = s.decisions[0]
    assert decision.decided_at - decision.grabbed_at <= 1.0


def test_votes_from_before_a_gap_do_not_count() -> None:
    s = scene()
    s.frame((1, is_(KATYA)))
    s.nobody(3)
    s.frame((1, is_(KATYA)))
    assert PASS_KATYA not in s.told


def test_a_person_who_turns_away_and_back_is_one_visit() -> None:
    s = scene()
    s.frames(5, (1, is_(KATYA)))
    s.nobody(3)
    s.frames(5, (2, is_(KATYA)))  # another track, the same person
    s.nobody(4)
    s.frame((3, is_(KATYA)))  # a glimpse, too short to be identified
    s.nobody(10)
    assert s.told == [PASS_KATYA]


def test_a_new_visit_passes_again() -> None:
    s = scene()
    s.frames(5, (1, is_(KATYA)))
    s.nobody(6)
    s.frames(5, (2, is_(KATYA)))
    assert s.told == [PASS_KATYA, PASS_KATYA]


def test_cooldown_holds_a_new_visit_back_until_it_is_over() -> None:
    s = scene(cooldown=20)
    s.frames(5, (1, is_(KATYA)))
    passed_at = s.decisions[0].decided_at
    s.nobody(6)
    s.frames(200, (2, is_(KATYA)))
    assert s.told == [PASS_KATYA, PASS_KATYA]
    assert 20 <= s.decisions[1].decided_at - passed_at < 20.3


def test_who_takes_the_place_of_another_on_the_same_track_gets_an_own_decision() -> None:
    s = scene()
    s.frames(5, (1, is_(KATYA)))
    s.frames(5, (1, is_(ZERO)))
    s.frames(5, (1, is_(KATYA)))
    assert s.told == [PASS_KATYA, PASS_ZERO]


def test_after_a_long_time_on_one_track_the_first_person_may_pass_again() -> None:
    s = scene()
    s.frames(5, (1, is_(KATYA)))
    s.frames(100, (1, is_(ZERO)))
    s.frames(5, (1, is_(KATYA)))
    assert s.told == [PASS_KATYA, PASS_ZERO, PASS_KATYA]


def test_two_people_side_by_side_are_decided_apart() -> None:
    s = scene()
    s.frames(10, (1, is_(KATYA)), (2, is_(ZERO)), (3, STRANGER))
    assert sorted(s.told) == [PASS_KATYA, PASS_ZERO, UNKNOWN]


def test_a_clip_that_starts_again_ends_all_visits() -> None:
    s = scene(cooldown=1)
    s.frames(30, (1, is_(KATYA)))
    s.epoch += 1
    s.frames(30, (2, is_(KATYA)))
    assert s.told == [PASS_KATYA, PASS_KATYA]


def test_a_removed_person_is_forgotten_at_once() -> None:
    s = scene()
    s.frame((1, is_(KATYA)))
    s.access.people_changed({"zero": ZERO})
    s.frame((1, STRANGER))
    s.frames(5, (1, STRANGER))
    assert s.told == [UNKNOWN]
    assert all(presence.persons == () for presence in s.presences)


def test_presence_comes_with_the_face_and_goes_after_the_timeout() -> None:
    s = scene()
    s.frames(5, (1, is_(KATYA)))
    s.nobody(4.5)
    assert [(p.present, p.persons, p.faces) for p in s.presences] == [(True, (), 1), (True, ("Katya",), 1)]
    assert s.presences[0].since == s.presences[1].since
    s.nobody(1)
    assert [(p.present, p.persons, p.faces) for p in s.presences[2:]] == [(False, (), 0)]


def test_presence_clears_when_the_camera_falls_silent() -> None:
    s = scene()
    s.frames(5, (1, STRANGER))
    s.silence(5.1)
    assert not s.presences[-1].present


def test_frames_1_decides_on_the_first_frame() -> None:
    s = scene(frames=1)
    s.frame((1, is_(KATYA)))
    assert s.told == [PASS_KATYA]


def test_a_settled_track_needs_no_further_look_and_keeps_its_name() -> None:
    s = scene()
    assert s.frame((1, is_(KATYA))).settled == frozenset()
    assert s.frame((1, is_(KATYA))).settled == {1}
    for _ in range(100):
        outcome = s.frame((1, None))
        assert outcome.settled == {1}
        assert outcome.verdicts[0].person == KATYA
    s.frame((1, is_(KATYA)))
    assert s.told == [PASS_KATYA]


def test_a_settled_stranger_is_looked_at_again_when_a_name_comes_up() -> None:
    s = scene()
    s.frames(2, (1, STRANGER))
    assert s.frame((1, STRANGER)).settled == {1}
    s.frames(20, (1, None))
    assert s.frame((1, is_(ZERO))).settled == frozenset()
    s.frame((1, is_(ZERO)))
    assert s.told == [UNKNOWN, PASS_ZERO]


def test_a_look_that_contradicts_the_shown_name_is_followed_by_more() -> None:
    """Somebody who resembles Katya takes her place on her track: the name goes within `frames + 1` looks."""
    for frames in (1, 2, 5):
        s = scene(frames=frames)
        s.frames(frames + 1, (1, is_(KATYA)))
        assert s.frame((1, None)).settled == {1}
        for _ in range(frames + 1):
            outcome = s.frame((1, STRANGER))
            if outcome.verdicts[0].person:
                assert outcome.settled == frozenset()
        assert outcome.verdicts[0].person is None
        assert outcome.settled == {1}


def test_frames_without_a_look_are_no_votes() -> None:
    s = scene()
    s.frame((1, is_(KATYA)))
    s.frames(50, (1, None))
    assert s.told == []
    s.frame((1, is_(KATYA)))
    assert s.told == [PASS_KATYA]


def test_a_changed_gallery_unsettles_everybody() -> None:
    s = scene()
    s.frames(3, (1, is_(KATYA)))
    s.access.people_changed({"katya": KATYA, "zero": ZERO})
    assert s.frame((1, None)).settled == frozenset()


def test_who_is_removed_and_still_stands_there_is_unknown() -> None:
    s = scene()
    s.frames(3, (1, is_(KATYA)))
    s.access.people_changed({"zero": ZERO})
    s.frames(5, (1, STRANGER))
    assert s.told == [PASS_KATYA, UNKNOWN]


def test_a_removed_person_is_not_shown_although_nobody_looks_again() -> None:
    s = scene()
    s.frames(3, (1, is_(KATYA)))
    s.access.people_changed({"zero": ZERO})
    assert s.frame((1, None)).verdicts[0].person is None


def test_when_the_cooldown_ends_a_frame_that_names_nobody_does_not_pass() -> None:
    s = scene(cooldown=10, frames=2)
    s.frames(3, (1, is_(KATYA)))
    s.nobody(6)
    while len(s.told) < 2:
        s.frame((2, is_(KATYA)))
        s.frame((2, is_(KATYA)))
        outcome = s.frame((2, STRANGER))
        assert outcome.decisions == ()
    assert s.decisions[1].verdict.match == is_(KATYA)


def test_a_head_that_is_turned_away_for_long_is_still_the_same_visit() -> None:
    s = scene(cooldown=0)
    s.frames(5, (1, is_(KATYA)))
    s.frames(200, (1, STRANGER))
    s.frames(5, (1, is_(KATYA)))
    assert s.told == [PASS_KATYA]


def test_the_stream_takes_a_name_back_when_a_look_names_another() -> None:
    s = scene()
    s.frames(5, (1, is_(KATYA)))
    (verdict,) = s.frame((1, is_(ZERO))).verdicts
    assert verdict.person is None


def test_a_vote_for_who_was_removed_does_not_count_when_they_are_back() -> None:
    s = scene()
    s.frame((1, is_(KATYA)))
    s.access.people_changed({})
    s.access.people_changed({"katya": KATYA})
    s.frame((1, is_(KATYA)))
    assert s.told == []
    s.frame((1, is_(KATYA)))
    assert s.told == [PASS_KATYA]


def test_who_left_while_the_camera_fell_silent_is_stale() -> None:
    s = scene()
    s.frame((1, STRANGER))
    s.silence(5.5)
    assert s.told == [("REJECT", "stale", None)]


def test_a_rejected_track_that_joins_a_visit_brings_its_reject_along() -> None:
    s = scene(cooldown=60)
    s.frames(3, (1, is_(KATYA)))
    s.nobody(6)
    s.frames(3, (2, is_(KATYA)))  # a new visit, waiting for the cooldown
    s.nobody(1)
    s.frames(3, (3, STRANGER))
    s.frames(3, (3, is_(KATYA)))
    s.nobody(1)
    s.frames(5, (3, STRANGER))
    assert s.told == [PASS_KATYA, UNKNOWN]


def test_a_pass_from_before_a_restart_still_counts() -> None:
    s = scene(cooldown=20)
    s.access.remember("katya", s.now - 1)
    s.frames(5, (1, is_(KATYA)))
    assert s.told == [], "the same visit"
    late = scene(cooldown=20)
    late.access.remember("katya", late.now - 10)
    late.frames(50, (1, is_(KATYA)))
    assert late.told == [], "a new visit, but in the cooldown"
    late.frames(60, (1, is_(KATYA)))
    assert late.told == [PASS_KATYA]


def test_presence_counts_from_the_grab_not_from_a_late_look() -> None:
    s = scene()
    for _ in range(5):
        s.frame((1, STRANGER), age_s=6)
    assert s.presences == []


BARRED = Person("eve", "Eve", blocked=True)
welcome = [is_(KATYA), is_(ZERO), STRANGER, UNSURE, Match(), None]
looks = st.sampled_from([*welcome, is_(BARRED)])
steps = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(1, 4), looks), max_size=3, unique_by=lambda face: face[0]),
        st.sampled_from([0.02, 0.02, 0.02, 0.9, 1.5]),  # age of the frame
        st.sampled_from([0.1, 0.1, 0.1, 0.1, 2.0, 6.0]),  # time since the frame before
    ),
    max_size=60,
)


@hypothesis_settings(max_examples=300, deadline=None)
@given(steps, st.integers(1, 4), st.sampled_from([0.0, 3.0, 8.0]))
def test_whatever_is_seen_the_rules_hold(
    seen: list[tuple[list[tuple[int, Match | None]], float, float]], frames: int, cooldown: float
) -> None:
    s = scene(frames=frames, cooldown=cooldown)
    votes: dict[int, list[tuple[int, Match]]] = {}
    present: dict[int, list[int]] = {}
    passes: dict[str, float] = {}
    for number, (faces, age_s, gap_s) in enumerate(seen):
        s.now += gap_s - s.step_s
        before = len(s.decisions)
        outcome = s.frame(*faces, age_s=age_s)
        for track, match in faces:
            present.setdefault(track, []).append(number)
            if match is not None:
                votes.setdefault(track, []).append((number, match if age_s <= 1.0 else Match()))
        for decision in s.decisions[before:]:
            verdict = decision.verdict
            if verdict.status != "PASS":
                assert verdict.person == (BARRED if verdict.reason == "not_allowed" else None)
                continue
            assert verdict.person != BARRED
            person = verdict.person
            assert person is not None
            assert s.now - decision.grabbed_at <= 1.0
            recent = votes[verdict.track][-(frames + 1) :]
            agreeing = [at for at, match in recent if match == is_(person)]
            assert len(agreeing) >= frames
            assert agreeing[-1] == number
            sighted = [at for at in present[verdict.track] if at >= agreeing[-frames]]
            gaps = [later - earlier for earlier, later in pairwise(sighted)]
            assert max(gaps, default=0) <= frames + 1, "a vote from before a gap counted"
            assert s.now - passes.get(person.id, -1e9) >= cooldown
            passes[person.id] = s.now
        for shown in outcome.verdicts:
            if shown.status == "PASS":
                assert shown.person is not None
                assert shown.person.id in passes, "a viewer saw PASS before the decision"
            else:
                assert shown.person == (BARRED if shown.reason == "not_allowed" else None)


@hypothesis_settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(welcome), st.sampled_from([0.1, 0.5, 1.0, 3.0, 4.9])), min_size=1, max_size=80)
)
def test_one_unbroken_track_is_one_visit(seen: list[tuple[Match | None, float]]) -> None:
    """With gaps under presence_timeout: at most one REJECT, and none after a PASS."""
    s = scene(cooldown=0)
    for match, gap_s in seen:
        s.now += gap_s - s.step_s
        s.frame((1, match))
    statuses = [status for status, _, _ in s.told]
    assert statuses.count("REJECT") <= 1
    if "PASS" in statuses:
        assert "REJECT" not in statuses[statuses.index("PASS") :]


def test_every_face_gets_a_final_word() -> None:
    """A visit never ends without a decision, however short it was."""
    for count in range(1, 8):
        s = scene()
        s.frames(count, (1, STRANGER))
        s.silence(6)
        assert len(s.told) == 1


def test_votes_do_not_outlive_an_interruption_and_visits_do() -> None:
    s = scene()
    s.frame((1, is_(KATYA)))
    s.access.interrupted()
    assert s.frame((1, is_(KATYA))).verdicts[0].reason == "deciding"
    s.frame((1, is_(KATYA)))
    s.frames(5, (2, STRANGER))
    assert s.told == [PASS_KATYA, UNKNOWN]
    s.access.interrupted()
    s.frames(5, (1, is_(KATYA)), (2, STRANGER))
    assert s.told == [PASS_KATYA, UNKNOWN]


BLOCKED = replace(KATYA, blocked=True)
NOT_ALLOWED = ("REJECT", "not_allowed", "Katya")


def test_a_blocked_person_is_named_and_not_let_in() -> None:
    s = scene()
    s.frame((1, is_(BLOCKED)))
    outcome = s.frame((1, is_(BLOCKED)))
    assert outcome.verdicts[0].person == BLOCKED
    assert outcome.settled == {1}
    s.frames(50, (1, is_(BLOCKED)))
    s.frames(5, (1, STRANGER))
    s.nobody(1)
    s.frame((2, is_(BLOCKED)))  # a glimpse in the same visit
    s.nobody(7)
    assert s.told == [NOT_ALLOWED]
    s.frames(3, (3, is_(BLOCKED)))
    assert s.told == [NOT_ALLOWED] * 2


@pytest.mark.parametrize(
    ("valid_from", "valid_until", "date", "allowed"),
    [
        (None, None, None, True),
        (100.0, 200.0, 100.0, True),
        (100.0, 200.0, 199.9, True),
        (100.0, 200.0, 99.9, False),
        (100.0, 200.0, 200.0, False),
        (100.0, None, 1e9, True),
        (None, 200.0, 0.0, True),
        (None, 200.0, None, False),
        (100.0, None, None, False),
        (100.0, None, float("nan"), False),
        (float("nan"), None, 150.0, False),
        (None, float("nan"), 150.0, False),
    ],
)
def test_who_may_pass_when(
    valid_from: float | None, valid_until: float | None, date: float | None, allowed: bool
) -> None:
    person = replace(KATYA, valid_from=valid_from, valid_until=valid_until)
    assert is_allowed(person, date) is allowed
    assert not is_allowed(replace(person, blocked=True), date)
    s = scene(date=date)
    s.frames(3, (1, is_(person)))
    assert s.told == [PASS_KATYA if allowed else NOT_ALLOWED]


def test_whoever_loses_the_right_to_pass_while_here_is_told_of_and_may_get_it_back() -> None:
    s = scene(cooldown=1.0)
    s.frames(5, (1, is_(KATYA)))
    s.access.people_changed({"katya": BLOCKED})
    assert s.frame((1, None)).verdicts[0].status == "REJECT"
    s.frames(20, (1, is_(BLOCKED)))
    s.access.people_changed({"katya": KATYA})
    s.frames(20, (1, is_(KATYA)))
    assert s.told == [PASS_KATYA, NOT_ALLOWED, PASS_KATYA]


def test_the_time_ends_while_somebody_stands_there() -> None:
    person = replace(KATYA, valid_until=150.0)
    s = scene(date=149.0)
    s.frames(5, (1, is_(person)))
    s.date = 150.0
    outcome = s.frame((1, None))
    assert outcome.verdicts[0].reason == "not_allowed"
    s.frames(5, (1, is_(person)))
    assert s.told == [PASS_KATYA, NOT_ALLOWED]


def test_who_is_blocked_is_told_of_beside_somebody_who_passed_on_the_same_track() -> None:
    s = scene()
    s.frames(5, (1, is_(ZERO)))
    s.frames(9, (1, is_(BLOCKED)))
    assert s.told == [PASS_ZERO, NOT_ALLOWED]


def test_votes_of_before_a_change_of_the_person_do_not_count() -> None:
    s = scene()
    s.frame((1, is_(KATYA)))
    changed = replace(KATYA, faces=2)
    s.access.people_changed({"katya": changed})
    s.frame((1, is_(changed)))
    assert s.told == []
    s.frame((1, is_(changed)))
    assert s.told == [PASS_KATYA]


def test_a_blocked_person_who_passed_before_a_restart_does_not_pass_again() -> None:
    s = scene()
    s.access.remember("katya", s.now - 1)
    s.frames(9, (1, is_(BLOCKED)))
    assert s.told == [NOT_ALLOWED]


def test_other_rules_begin_the_votes_anew_and_visits_stay() -> None:
    """A reload: one vote by the looser rule and one by the stricter are no PASS; nobody is let in twice."""
    s = scene(threshold=0.6, cooldown=0)
    s.frame((1, is_(KATYA)))
    s.access.use(settings.Decision(threshold=0.25, frames=2, cooldown=0))
    s.frame((1, is_(KATYA)))  # 0.3 by now is too far
    s.access.use(settings.Decision(frames=3, cooldown=0))
    s.frames(2, (1, is_(KATYA)))
    assert s.told == []
    s.frame((1, is_(KATYA)))
    assert s.told == [PASS_KATYA]
    s.access.use(settings.Decision(threshold=0.25, cooldown=0))
    s.frames(10, (1, is_(KATYA)))
    s.access.use(settings.Decision(cooldown=0))
    s.frames(10, (1, is_(KATYA)))
    assert s.told == [PASS_KATYA]
