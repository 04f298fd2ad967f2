"""Every stage between a camera and a viewer, timed one by one in this process."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np

from edge_face import settings
from edge_face.access import Access
from edge_face.bench.results import MatchCost, SearchCost, ThreadCost, Timing, timed
from edge_face.bench.scene import Scene, rgb
from edge_face.bench.vitals import memory_mib
from edge_face.clips import ClipSource
from edge_face.clock import Clock, SystemClock
from edge_face.config import is_loopback
from edge_face.engine import Engine
from edge_face.errors import EdgeFaceError
from edge_face.events import Encoding, Event, FrameResult, FrameView, Match, Person, TrackedFace, Verdict, uuid7
from edge_face.gallery import Gallery
from edge_face.images import RgbImage
from edge_face.sinks.mqtt_link import Link, LinkLost, PublishRefused
from edge_face.sinks.mqtt_messages import as_json
from edge_face.vision import models, quality
from edge_face.vision.detect import detect, resized, search_scale
from edge_face.vision.interfaces import Aligned, Detector
from edge_face.vision.models import Models
from edge_face.vision.motion import MotionGate
from edge_face.web.stream import message

GALLERIES = (10, 100, 1_000, 10_000, 100_000)
_ENCODING_LENGTH = 0.12
"""Standard deviation of a number in dlib's descriptors."""
_BYTES_OF_A_FACE = 3 * 4 * 128 + 600
"""While a gallery is built, with the person's record."""
_BROKER = ("127.0.0.1", 1883)


class Stages:
    """Each method measures for at most `budget_s` seconds, but for a few runs at least."""

    def __init__(self, scene: Scene, config: settings.Config, loaded: Models, budget_s: float) -> None:
        self._scene = scene
        self._config = config
        self._models = loaded
        self._budget_s = budget_s
        self._aligned = [self._align(number) for number in range(len(scene.faces))]
        self.encodings: list[Encoding] = list(loaded.encoder.encode(np.stack([each.chip for each in self._aligned])))

    def _align(self, number: int) -> Aligned:
        frame, box = self._scene.faces[number % len(self._scene.faces)]
        aligned = self._models.aligner.align(rgb(frame), box)
        quality.measure(box, *aligned)
        return aligned

    def _frame(self, number: int) -> RgbImage:
        return self._scene.frames[number % len(self._scene.frames)]

    def _scale(self, detector: Detector, min_face: int) -> float:
        return search_scale(next(iter(self._config.cameras.values())).scale, min_face, detector)

    def camera(self) -> Iterator[Timing]:
        """From the source to a picture at the size that is searched."""
        source = ClipSource(str(self._scene.clip), settings.Camera(realtime=False, loop=True), SystemClock())
        try:
            yield timed("grab", lambda _: source.read(), self._budget_s)
        finally:
            source.close()
        jpegs = [np.frombuffer(self._jpeg(frame), np.uint8) for frame, _ in self._scene.faces]
        yield timed("decode", lambda n: cv2.imdecode(jpegs[n % len(jpegs)], cv2.IMREAD_COLOR), self._budget_s)
        motion = MotionGate()

        def look(number: int) -> None:
            motion.look(self._frame(number))
            motion.examined()

        yield timed("motion", look, self._budget_s)
        scale = self._scale(self._models.detector, self._config.engine.min_face)
        yield timed("scale", lambda n: rgb(resized(self._frame(n), scale)), self._budget_s)

    def faces(self) -> Iterator[Timing]:
        """From a face's box to its numbers, and whom it belongs to."""
        yield self._track()
        yield timed("align", self._align, self._budget_s)
        chips = np.stack([each.chip for each in self._aligned])
        yield timed("encode", lambda n: self._models.encoder.encode(chips[n % len(chips)][None]), self._budget_s)

    def _track(self) -> Timing:
        """Following from frame to frame, as the engine itself times it."""
        engine = Engine(self._models, self._config.engine)
        took: list[float] = []
        for number in range(len(self._scene.frames)):
            faces, stages_ms = engine.process(self._frame(number), number / 10)
            engine.settled([face.track for face in faces])
            if faces:
                took.append(stages_ms.get("follow", 0.0) + stages_ms.get("track", 0.0))
        return Timing.of("track", took or [0.0])

    def search(self, detector: Detector, min_face: int) -> SearchCost:
        """Whole frames: reduced for this detector and searched."""
        scale = self._scale(detector, min_face)

        def search(number: int) -> None:
            frame, _ = self._scene.faces[number % len(self._scene.faces)]
            detect(rgb(resized(frame, scale)), detector, scale, min_face, self._config.engine.max_face)

        return SearchCost(detector.name, min_face, timed(f"detect {detector.name}", search, self._budget_s))

    def threads(self, count: int) -> ThreadCost:
        """A frame in which everything has to be done, with so many threads. Raises ModelError."""
        options = replace(
            self._config.engine, threads=count, backend=self._models.backend, detector=self._models.detector.name
        )
        loaded = models.load(options)
        before = cv2.getNumThreads()
        cv2.setNumThreads(count)
        scale = self._scale(loaded.detector, options.min_face)

        def all_of_it(number: int) -> None:
            frame, box = self._scene.faces[number % len(self._scene.faces)]
            detect(rgb(resized(frame, scale)), loaded.detector, scale, options.min_face, options.max_face)
            aligned = loaded.aligner.align(rgb(frame), box)
            loaded.encoder.encode(aligned.chip[None])

        try:
            return ThreadCost(count, timed(f"{count} threads", all_of_it, self._budget_s))
        finally:
            cv2.setNumThreads(before)

    def match(self, faces: int) -> MatchCost | None:
        """None: the board has not enough memory for so many."""
        if memory_mib("MemAvailable") << 20 < 2 * faces * _BYTES_OF_A_FACE:
            return None
        gallery = gallery_of(self.encodings[0], faces)
        cost = timed(f"match {faces:,}", lambda n: gallery.match([self._encoding(n)]), self._budget_s)
        return MatchCost(faces, cost)

    def _encoding(self, number: int) -> Encoding:
        return self.encodings[number % len(self.encodings)]

    def telling(self) -> Iterator[Timing]:
        """From the match to what a viewer gets."""
        access = Access(self._config.decision)
        verdicts: list[Verdict] = []

        def decide(number: int) -> None:
            match = Match(Person("p1", "Somebody"), 0.3, 0.3)
            verdicts[:] = access.observe(self._result(number), [match], number / 10).verdicts

        yield timed("decide", decide, self._budget_s)
        yield timed("JPEG", lambda n: self._jpeg(self._frame(n)), self._budget_s)
        jpeg = self._jpeg(self._frame(0))

        def tell(number: int) -> bytes:
            result = replace(self._result(number), jpeg=jpeg)
            return message(FrameView("bench", result, tuple(verdicts), 0.45, 0.0, 10.0), True)

        yield timed("WebSocket", tell, self._budget_s)

    def _result(self, number: int) -> FrameResult:
        (width, height), (_, box) = self._scene.size, self._scene.faces[0]
        face = TrackedFace(box, 1.0, 1, self.encodings[0], None)
        return FrameResult("bench", number, 0, number / 10, float(number), width, height, (face,), {})

    def _jpeg(self, frame: RgbImage) -> bytes:
        quality_ = [cv2.IMWRITE_JPEG_QUALITY, self._config.stream.jpeg_quality]
        return cv2.imencode(".jpg", frame, quality_)[1].tobytes()

    def publish(self) -> tuple[Timing | None, str]:
        """To a broker on this machine, which keeps nothing of it; else why not."""
        options = self._config.mqtt
        if not is_loopback(options.host):
            options = settings.Mqtt(host=_BROKER[0], port=_BROKER[1])
        try:
            return asyncio.run(_publish(options, self._budget_s)), ""
        except (LinkLost, PublishRefused, EdgeFaceError, OSError) as error:
            return None, f"publish: {error}"


async def _publish(options: settings.Mqtt, budget_s: float) -> Timing:
    """An event with QoS 1, until the broker has acknowledged it. Raises LinkLost, PublishRefused."""
    name = f"edge-face-bench-{secrets.token_hex(4)}"
    link = Link(options, name)
    await link.open()
    took: list[float] = []
    loop = asyncio.get_running_loop()
    end = loop.time() + budget_s
    try:
        while len(took) < 3 or (len(took) < 500 and loop.time() < end):
            payload = as_json(an_event(SystemClock()).payload())
            begin = loop.time()
            await link.send(f"{name}/event", payload, 2.0)
            took.append((loop.time() - begin) * 1000)
        await link.close()
    finally:
        link.abort()
    return Timing.of("publish", took)


def an_event(clock: Clock, number: int = 1) -> Event:
    """Somebody may come in."""
    now = clock.wall()
    person = f"Katya {number % 50}"
    return Event(
        type="face_event",
        id=uuid7(now),
        seq=0,
        node="gate-1",
        camera="front",
        status="PASS",
        reason="match",
        name=person,
        person_id=person.lower().replace(" ", "-"),
        external_id=None,
        distance=0.4123,
        threshold=0.45,
        margin=0.21,
        score=None,
        rule="distance",
        box=(120, 80, 240, 300),
        track=number,
        frames=3,
        timestamp=now,
        expires_at=now + 5,
        latency_ms=87.0,
    )


def gallery_of(encoding: Encoding, faces: int) -> Gallery:
    """One who is in the pictures, and strangers who look like nobody."""
    matrix = np.random.default_rng(0).standard_normal((faces, len(encoding)), np.float32) * np.float32(_ENCODING_LENGTH)
    matrix[faces // 2] = encoding
    persons = [Person(f"p{number}", f"Person {number}") for number in range(faces)]
    return Gallery.build(persons, np.arange(faces, dtype=np.int32), matrix)


def detectors(options: settings.Engine, backend: str) -> Iterator[tuple[str, Models | None, str]]:
    """Each detector with its models, or why it is not there."""
    for name in ("hog", "cnn", "yunet"):
        if name == "yunet" and not options.yunet_model:
            yield name, None, "its model file is not here; scripts/get-yunet fetches it"
            continue
        try:
            yield name, models.load(replace(options, backend=backend, detector=name)), ""
        except EdgeFaceError as error:
            yield name, None, error.message
