"""The whole run, step by step, inside its time: what does not fit any more is left out, and the report says so."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import platform
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import cv2

from edge_face import __version__, backends, board, settings
from edge_face.bench import cameras, rates, scene, vitals
from edge_face.bench.advice import Wishes
from edge_face.bench.results import (
    BenchError,
    Board,
    CameraRun,
    MatchCost,
    Measured,
    Rates,
    SearchCost,
    ThreadCost,
    Timing,
)
from edge_face.bench.stages import GALLERIES, Stages, detectors, gallery_of
from edge_face.child import START_S
from edge_face.errors import EdgeFaceError
from edge_face.vision import models

FULL_S, QUICK_S = 170.0, 28.0
"""Under three minutes, and half a minute."""
_LARGER = (1.25, 1.5, 2.0, 3.0)
"""How many times the user's min_face is tried as well."""
_STAGE_PART = 1 / 120
"""Of all time, for one stage."""
_CAMERA_PART = 1 / 14
"""Of all time, for one run with cameras."""
_STEPS = 16
"""Beside those for each detector and each gallery."""
_LEAST_CAMERA_S = 0.7
_PEOPLE = 1000
"""In the gallery of the runs with cameras."""
_END_PART = 0.98
_SPEEDS_PART = 1.2
"""Of the time that the board's speeds take, loading included."""

Progress = Callable[[int, int, str], None]


class Bench:
    """One run. `progress` is told how many of how many steps are done, and what is next."""

    def __init__(
        self,
        config: settings.Config,
        source: str,
        *,
        quick: bool,
        progress: Progress,
        limit_s: float | None = None,
        root: Path = board.ROOT,
    ) -> None:
        self._config = config
        self._source = source
        self._quick = quick
        self._progress = progress
        self._limit_s = limit_s or (QUICK_S if quick else FULL_S)
        self._begin = time.monotonic()
        self._root = root
        self._notes: list[str] = []
        self._stages: list[Timing] = []
        self._searches: list[SearchCost] = []
        self._threads: list[ThreadCost] = []
        self._matches: list[MatchCost] = []
        self._cameras: list[CameraRun] = []
        self._rates: Rates | None = None
        self._done, self._steps = 0, 1

    def run(self) -> Measured:
        """Raises BenchError."""
        scene.must_open(self._source)
        watcher = vitals.Watcher(self._root)
        with watcher, tempfile.TemporaryDirectory(prefix="edge-face-bench-") as folder:
            backend, start_s = asyncio.run(cameras.first_start(self._config.engine))
            self._step("the models")
            cv2.setNumThreads(models.thread_count(self._config.engine))
            loaded = self._load(backend)
            main = loaded[0]
            seen = scene.take(self._source, self._config, main, Path(folder), self._limit_s / 10)
            stages = Stages(seen, self._config, main, self._limit_s * _STAGE_PART)
            others = (len(loaded) - 1) * (1 if self._quick else 2)
            self._steps = _STEPS + len(GALLERIES) + 2 * len(loaded) + others
            # First what the advice cannot do without: if time is short, all else has to wait.
            self._cameras_of(main.detector.name, stages, seen.clip, start_s)
            self._in_this_process(stages, loaded)
            self._larger_faces(stages, loaded)
            self._with_threads(stages)
            self._other_detectors(stages, loaded[1:], seen.clip, start_s)
            self._speeds(backend)
        width, height = seen.size
        return Measured(
            board=this_board(self._root),
            source=seen.source,
            width=width,
            height=height,
            backend=backend,
            quick=self._quick,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - self._begin, 1),
            start_s=round(start_s, 2),
            stages=tuple(self._stages),
            searches=tuple(self._searches),
            threads=tuple(self._threads),
            matches=tuple(self._matches),
            cameras=tuple(self._cameras),
            vitals=watcher.vitals(),
            notes=tuple(self._notes),
            rates=self._rates,
        )

    def wishes(self, latency_ms: float) -> Wishes:
        """What the configuration asks of the board."""
        engine, shown = self._config.engine, list(self._config.cameras.values())
        return Wishes(
            latency_ms=latency_ms,
            min_face=engine.min_face,
            fps=max(camera.fps for camera in shown),
            threads=models.thread_count(engine),
            cameras=len(shown),
            frames=self._config.decision.frames,
            yunet_is_here=bool(engine.yunet_model),
        )

    def _left_s(self) -> float:
        return self._begin + self._limit_s * _END_PART - time.monotonic()

    def _step(self, what: str) -> None:
        self._progress(min(self._done, self._steps), self._steps, what)
        self._done += 1

    def _load(self, backend: str) -> list[models.Models]:
        """Each detector that is there; the configuration's own stands first."""
        found: list[models.Models] = []
        for name, loaded, why_not in detectors(self._config.engine, backend):
            if loaded:
                found.append(loaded)
            else:
                self._notes.append(f"detect {name}: {why_not}")
        engine = self._config.engine
        wanted = engine.detector if engine.detector != "auto" else "yunet" if engine.yunet_model else "hog"
        if not found:
            raise BenchError("No detector can be used here. " + " ".join(self._notes))
        return sorted(found, key=lambda loaded: loaded.detector.name != wanted)

    def _in_this_process(self, stages: Stages, loaded: list[models.Models]) -> None:
        engine = self._config.engine
        for group in (stages.camera, stages.faces):
            for timing in group():
                self._stages.append(timing)
                self._step(timing.name)
        for each in loaded:
            self._step(f"detect {each.detector.name}")
            cost = stages.search(each.detector, engine.min_face)
            self._searches.append(cost)
            self._stages.append(cost.timing)
        for faces in GALLERIES:
            self._step(f"match {faces:,}")
            matched = stages.match(faces) if self._left_s() > 0 else None
            if matched:
                self._matches.append(matched)
            elif self._left_s() <= 0:
                self._notes.append(f"match {faces:,}: there was no time left")
            else:
                self._notes.append(f"match {faces:,}: the board has not enough memory for so many")
        for timing in stages.telling():
            self._stages.append(timing)
            self._step(timing.name)
        self._step("publish")
        published, why_not = stages.publish()
        if published:
            self._stages.append(published)
        else:
            self._notes.append(why_not)

    def _other_detectors(self, stages: Stages, loaded: list[models.Models], clip: Path, start_s: float) -> None:
        for name in [each.detector.name for each in loaded]:
            if self._quick:
                self._step(f"cameras with {name}")
                self._notes.append(f"cameras with {name}: not with --quick; reckoned from what its search costs")
            else:
                self._cameras_of(name, stages, clip, start_s)

    def _cameras_of(self, detector: str, stages: Stages, clip: Path, start_s: float) -> None:
        gallery = gallery_of(stages.encodings[0], _PEOPLE)
        engine = dataclasses.replace(self._config.engine, detector=detector)
        for count in (1, 2):
            what = f"{count} {'camera' if count == 1 else 'cameras'} with {detector}"
            self._step(what)
            start = 1.5 * start_s * count
            seconds = min(self._limit_s * _CAMERA_PART, self._left_s() - start)
            if not self._cameras:
                seconds = max(seconds, _LEAST_CAMERA_S)  # without one there is no advice
            if seconds < _LEAST_CAMERA_S:
                self._notes.append(f"{what}: there was no time left")
                continue
            try:
                run = asyncio.run(
                    cameras.watch(count, self._config, engine, clip, gallery, seconds, max(START_S, self._left_s()))
                )
            except BenchError as error:
                self._notes.append(f"{what}: {error.message}")
            else:
                self._cameras.append(run)

    def _larger_faces(self, stages: Stages, loaded: list[models.Models]) -> None:
        least = self._config.engine.min_face
        for each in loaded:
            self._step(f"larger faces with {each.detector.name}")
            for factor in _LARGER:
                if self._left_s() > 0:
                    self._searches.append(stages.search(each.detector, round(least * factor)))

    def _with_threads(self, stages: Stages) -> None:
        self._step("threads")
        cpus = _cpus()
        for count in sorted({1, cpus, max(1, cpus // 2), models.thread_count(self._config.engine)}):
            if self._left_s() > 0:
                try:
                    self._threads.append(stages.threads(count))
                except EdgeFaceError as error:
                    self._notes.append(f"{count} threads: {error.message}")

    def _speeds(self, backend: str) -> None:
        self._step("the board's speeds")
        if self._quick:
            return  # nothing that was measured needs them
        if self._left_s() < _SPEEDS_PART * rates.SECONDS:
            self._notes.append("the board's speeds: there was no time left")
            return
        self._rates = rates.measure(self._config.engine, backend, _cpus())


def this_board(root: Path = board.ROOT) -> Board:
    versions = {"edge-face": __version__, "python": platform.python_version(), "kernel": platform.release()}
    versions |= {name: version for name in models.BACKENDS if (version := backends.version(name))}
    return Board(vitals.name_of(root), platform.machine(), _cpus(), vitals.memory_mib(root=root), versions)


def _cpus() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0))
