"""From what was measured to settings that suit the board. Pure: numbers in, words out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edge_face.bench.results import Advice, Measured

DETECTORS = ("yunet", "cnn", "hog")
"""Who sees most comes first: hog misses turned faces."""
RATES = (2, 3, 4, 5, 6, 8, 10, 12, 15)
"""Frames a second that may be advised."""
USUAL_RATE = 10
HEADROOM = 0.7
"""Of the frames that the board managed with two people coming and going; a crowd and a hot day need the rest."""
MOST_CAMERAS = 8
MATCHING_PART = 0.2
"""Of the parent's time: it matches for all cameras."""
MATCH_LATENCY_PART = 0.05
NEARLY_AS_FAST = 1.1
BUSY = 0.2
"""Part of the processor that others took, from which on the figures are not those of the board."""
HOT_C = 80.0


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is asked of the board, and what the configuration says already."""

    latency_ms: float = 300.0
    min_face: int = 80
    fps: float = 10.0
    threads: int = 1
    """That the figures were measured with."""
    cameras: int = 1
    frames: int = 2
    """`[decision] frames`."""
    yunet_is_here: bool = False


@dataclass(frozen=True, slots=True)
class _Plan:
    detector: str
    min_face: int
    fps: int
    threads: int
    expected_ms: float


def advise(measured: Measured, wishes: Wishes) -> Advice:
    """The best detector at the user's own `min_face`; a larger one only where the board needs it.

    Never a smaller one: the gate would open for who passes by farther off.
    """
    maker = _Maker(measured, wishes)
    wanted = min(RATES, key=lambda rate: abs(rate - (wishes.fps or USUAL_RATE)))
    for cameras in dict.fromkeys((wishes.cameras, 1)):
        for least in (wanted, RATES[0]):
            plan = next((plan for plan in maker.plans(cameras) if plan.fps >= least), None)
            if plan:
                return _advice(maker, plan, cameras)
    return _nothing(maker)


class _Maker:
    """Puts the measured pieces together."""

    def __init__(self, measured: Measured, wishes: Wishes) -> None:
        self.measured = measured
        self.wishes = wishes
        self._around_ms = sum(
            stage.p95_ms
            for name in ("decode", "motion", "align", "encode", "track", "decide", "publish")
            if (stage := measured.stage(name))
        )

    def plans(self, cameras: int) -> Iterator[_Plan]:
        """Those that hold the latency with so many cameras, the best first."""
        for min_face in sorted({cost.min_face for cost in self.measured.searches}):
            for detector in DETECTORS:
                plan = self.plan(detector, min_face, cameras)
                if plan:
                    yield plan

    def plan(self, detector: str, min_face: int, cameras: int, only_fps: int | None = None) -> _Plan | None:
        """None: it was not measured, or it does not hold the latency."""
        threads = self.threads(cameras)
        wanted = self.wishes.fps or USUAL_RATE
        rates = [rate for rate in RATES if rate >= wanted] + [rate for rate in reversed(RATES) if rate < wanted]
        age_ms = self.age_ms(detector, min_face, cameras)
        if age_ms is None:
            return None
        for fps in rates if only_fps is None else (only_fps,):
            expected_ms = (self.wishes.frames - 1) * 1000 / fps + age_ms
            if fps * cameras <= HEADROOM * self.capacity(detector, cameras) and expected_ms <= self.wishes.latency_ms:
                return _Plan(detector, min_face, fps, threads, expected_ms)
        return None

    def threads(self, cameras: int) -> int:
        """The fewest that are nearly as fast as the fastest, and no more than each camera has processors."""
        tried = sorted(self.measured.threads, key=lambda cost: cost.threads)
        most = max(1, self.measured.board.cpus // cameras)
        allowed = [cost for cost in tried if cost.threads <= most]
        if not allowed:
            return min(self.wishes.threads, most)
        fastest = min(cost.timing.p50_ms for cost in allowed)
        return next(cost.threads for cost in allowed if cost.timing.p50_ms <= NEARLY_AS_FAST * fastest)

    def age_ms(self, detector: str, min_face: int, cameras: int) -> float | None:
        """Of a frame in which everything has to be done, when it is decided; cautious, as the parts' p95 are added."""
        search = self._search_ms(detector, min_face)
        if search is None:
            return None
        threads = self.threads(cameras)
        alone_ms = (search + self._around_ms) * max(1.0, self._slower(threads))
        shared_ms = alone_ms * max(1.0, cameras * threads / self.measured.board.cpus)
        seen = [run.frame.p95_ms for run in self.measured.cameras if (run.detector, run.cameras) == (detector, cameras)]
        return max([shared_ms, *seen])

    def _search_ms(self, detector: str, min_face: int) -> float | None:
        found = (
            cost.timing.p95_ms
            for cost in self.measured.searches
            if (cost.detector, cost.min_face) == (detector, min_face)
        )
        return next(found, None)

    def _slower(self, threads: int) -> float:
        """Than with the threads that all else was measured with."""
        times = {cost.threads: cost.timing.p50_ms for cost in self.measured.threads}
        if threads not in times or self.wishes.threads not in times:
            return 1.0
        return times[threads] / max(1e-6, times[self.wishes.threads])

    def capacity(self, detector: str, cameras: int) -> float:
        """Frames a second of all cameras together. Of a detector that had no run: by what its search costs more."""
        runs = {run.cameras: run.fps for run in self.measured.cameras if run.detector == detector}
        if runs:
            return runs[max((count for count in runs if count <= cameras), default=min(runs))]
        others = [run.detector for run in self.measured.cameras]
        if not others:
            return 0.0
        mine, theirs = (self._search_ms(name, self.wishes.min_face) for name in (detector, others[0]))
        if not mine or not theirs:
            return 0.0
        around = self._around_ms
        return self.capacity(others[0], cameras) * min(1.0, (theirs + around) / (mine + around))

    def people(self, cameras: int, fps: int) -> tuple[int, bool]:
        """How many faces can be matched in time, and whether that is the most that was tried."""
        good = 0
        tried = sorted(self.measured.matches, key=lambda cost: cost.faces)
        for cost in tried:
            in_time = cost.timing.p95_ms <= MATCH_LATENCY_PART * self.wishes.latency_ms
            if in_time and cost.timing.p50_ms * fps * cameras <= MATCHING_PART * 1000:
                good = cost.faces
        return good, bool(tried) and good == tried[-1].faces


def _advice(maker: _Maker, plan: _Plan, asked: int) -> Advice:
    wishes = maker.wishes
    cameras = asked
    for count in range(asked, MOST_CAMERAS + 1):
        if maker.plan(plan.detector, plan.min_face, count, plan.fps):
            cameras = count
        else:
            break
    people, at_least = maker.people(cameras, plan.fps)
    settings = {
        "engine.detector": plan.detector,
        "engine.min_face": str(plan.min_face),
        "engine.threads": str(plan.threads),
        "camera.fps": str(plan.fps),
    }
    keys = f"min_face = {plan.min_face}, threads = {plan.threads} and fps = {plan.fps}"
    within = f"within the {wishes.latency_ms:.0f} ms that were asked for ({_agree(wishes.frames)})"
    served = f"{_count(cameras, 'camera')} so{' (more were not asked)' if cameras == MOST_CAMERAS else ''}"
    faces = f", and {'at least ' if at_least else ''}{people:,} enrolled faces" if maker.measured.matches else ""
    words = [
        f"Use the detector {plan.detector} with {keys}.",
        f"A face is then decided about {plan.expected_ms:.0f} ms after its first picture, {within}.",
        f"The board can serve {served}{faces}.",
    ]
    if plan.min_face > wishes.min_face:
        words.append(
            f"Faces smaller than {plan.min_face} pixels are then not seen: people have to come nearer than with your "
            f"min_face = {wishes.min_face}, for which this board is too slow."
        )
    if cameras < wishes.cameras:
        words.append(
            f"Your configuration has {_count(wishes.cameras, 'camera')}: more than this board can serve in time."
        )
    return Advice(
        settings,
        wishes.latency_ms,
        round(plan.expected_ms, 1),
        cameras,
        people,
        at_least,
        (*words, *_warnings(maker)),
    )


def _nothing(maker: _Maker) -> Advice:
    """No setting holds the latency: say what comes nearest."""
    wishes = maker.wishes
    ages = [
        (age, cost.detector, cost.min_face)
        for cost in maker.measured.searches
        if (age := maker.age_ms(cost.detector, cost.min_face, 1)) is not None
    ]
    if not maker.measured.cameras:
        words = ["No camera's process could be tried, so nothing can be advised; the notes say why."]
        return Advice({}, wishes.latency_ms, 0.0, 0, 0, False, (*words, *_warnings(maker)))
    words = [f"No setting of this board decides within {wishes.latency_ms:.0f} ms."]
    expected_ms = 0.0
    if ages:
        age, detector, min_face = min(ages)
        fps = min(RATES[-1], max(0.5, HEADROOM * maker.capacity(detector, 1)))
        expected_ms = (wishes.frames - 1) * 1000 / fps + age
        words.append(
            f"The fastest is the detector {detector} with min_face = {min_face}: about {expected_ms:.0f} ms at "
            f"{fps:.1f} frames a second ({_agree(wishes.frames)})."
        )
    words.append("Ask for more time with --latency, or take a faster board.")
    return Advice({}, wishes.latency_ms, round(expected_ms, 1), 0, 0, False, (*words, *_warnings(maker)))


def _warnings(maker: _Maker) -> Iterator[str]:
    if not maker.wishes.yunet_is_here:
        yield "YuNet, which sees more than hog and is faster, was not measured: scripts/get-yunet fetches its file."
    vitals = maker.measured.vitals
    if vitals.throttled:
        yield f"The board was slowed down during the run: {'; '.join(vitals.throttled)}. Mend that, and measure again."
    if vitals.hottest_c is not None and vitals.hottest_c >= HOT_C:
        yield f"It became {vitals.hottest_c:.0f} °C hot in this short time: it needs cooling."
    if vitals.others > BUSY:
        yield (
            f"Other programs took {vitals.others:.0%} of the processor meanwhile, so the board can do more than this "
            "says. Stop them (edge-face itself, too) and measure again."
        )


def _agree(frames: int) -> str:
    return "one frame decides" if frames == 1 else f"{frames} frames must agree"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
