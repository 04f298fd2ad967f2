"""From a board's speeds and the counted work to milliseconds and frames a second. Pure: numbers in, numbers out.

A stage takes

    fixed + arithmetic / speed + fresh bytes / the kernel's speed
          + bytes * (1 / its share of the memory's speed - 1 / the speed that one core has alone)

The speed of the arithmetic was measured by one core with all of the memory to itself, so the last part is only what
cameras take from each other. A frame is the sum of its stages, each as often as it happens; `Scene` says how often.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_face import settings
from edge_face.bench import counts
from edge_face.bench.counts import SMALLEST_PX, TEMPLATES, Work
from edge_face.bench.results import Rates, Speed
from edge_face.engine import RECHECK_FRAMES, RECHECK_S
from edge_face.vision.budget import SEARCH_PART


@dataclass(frozen=True, slots=True)
class Scene:
    """What happens before a camera, for each of its frames. The numbers are those of the demo's visit, in which one
    comes, stays and goes: counted by the engine itself."""

    searched: float = 49 / 54
    """The part of the frames that are searched as a whole."""
    seen: float = 41 / 54
    """Faces that are in view; each is aligned, to see how well it is seen."""
    encoded: float = 4 / 54
    """Faces until they are decided. Later each is encoded once a second."""
    face_px: float = 150.0


EVERYTHING = Scene(1.0, 1.0, 1.0)
"""A frame in which nothing can be left out."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """`cores` that may be used, `threads` of each camera's process."""

    width: int
    height: int
    detector: str
    cores: int
    cameras: int = 1
    threads: int = 1
    faces: int = 1
    people: int = TEMPLATES
    min_face: int = 80
    watched: bool = False
    """Whether somebody looks at the live picture."""
    scene: Scene = Scene()


@dataclass(frozen=True, slots=True)
class Prediction:
    scenario: Scenario
    stages_ms: dict[str, float]
    """Each stage once, in one camera's process."""
    frame_ms: float
    """A frame of the scene, on average."""
    whole_ms: float
    """A frame in which everything has to be done."""
    fps: float
    """Of all cameras together, as fast as it can."""
    at_least: bool
    """Whether a search takes so long that the engine searches fewer frames: then there are more of them."""


def predict(rates: Rates, scenario: Scenario) -> Prediction | None:
    """None: that detector was not measured on this board."""
    crowded = scenario.cameras * scenario.threads > scenario.cores
    threads = 1 if crowded else scenario.threads
    stages = _stages(rates, scenario, threads)
    if stages is None:
        return None
    fps = 0.0
    frame_ms = 1000.0
    for _ in range(20):  # the fewer frames there are, the more of them have a face that is due again
        fps = min(scenario.cameras, max(1.0, scenario.cores / threads)) * 1000 / frame_ms
        frame_ms = _frame_ms(stages, scenario, fps / scenario.cameras)
    return Prediction(
        scenario,
        {name: round(ms, 3) for name, ms in stages.items()},
        round(frame_ms, 2),
        round(_sum(stages, EVERYTHING, scenario.faces, scenario.watched, 1.0), 2),
        round(fps, 2),
        stages["scale"] + stages["detect"] > SEARCH_PART * settings.Decision().max_age * 1000,
    )


def _stages(rates: Rates, scenario: Scenario, threads: int) -> dict[str, float] | None:
    width, height, detector = scenario.width, scenario.height, scenario.detector
    factor = SMALLEST_PX[detector] / scenario.min_face
    searched = counts.resized(width, height, factor)
    works = {
        "grab": ("grab", counts.jpeg(width, height)),
        "hand over": ("hand over", Work()),
        "motion": ("motion", counts.motion(width, height)),
        "scale": ("scale", counts.scale(width, height, factor)),
        "detect": (detector, counts.search(detector, *searched, scenario.min_face * factor)),
        "follow": ("follow", counts.follow()),
        "align": ("align", counts.align(scenario.scene.face_px)),
        "encode": ("encode", counts.encoder()),
        "JPEG": ("JPEG", counts.jpeg(width, height)),
    }
    busy = min(scenario.cameras, max(1, scenario.cores // threads))
    share = min(rates.copy_gbs, rates.copy_all_gbs / busy)
    stages = {}
    for name, (kind, work) in works.items():
        speed = rates.speed(kind, threads)
        if speed is None:
            return None
        shared_ms = work.bytes * (1 / share - 1 / rates.copy_gbs) / 1e6
        stages[name] = _alone_ms(speed, work) + shared_ms + work.fresh / rates.fresh_gbs / 1e6
    matched = rates.speed("match")
    more = counts.match(max(0, scenario.people - TEMPLATES))
    stages["match"] = (matched.fixed_ms if matched else 0.0) + more.bytes / share / 1e6
    return stages


def _alone_ms(speed: Speed, work: Work) -> float:
    return speed.fixed_ms + (work.flop / speed.gflops / 1e6 if speed.gflops else 0.0)


def _frame_ms(stages: dict[str, float], scenario: Scenario, fps: float) -> float:
    again = scenario.scene.seen / max(RECHECK_FRAMES, RECHECK_S * fps)
    encoded = min(scenario.scene.seen, scenario.scene.encoded + again)
    return _sum(stages, scenario.scene, scenario.faces, scenario.watched, encoded)


def _sum(stages: dict[str, float], scene: Scene, faces: int, watched: bool, encoded: float) -> float:
    often = {
        "grab": 1.0,
        "hand over": 1.0,
        "motion": 1.0,
        "scale": scene.searched,
        "detect": scene.searched,
        "follow": scene.seen * faces,
        "align": scene.seen * faces,
        "encode": encoded * faces,
        "match": encoded * faces,
        "JPEG": float(watched),
    }
    return sum(times * stages[name] for name, times in often.items())
