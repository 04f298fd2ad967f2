"""Ten seconds that tell a board's speed: the networks, memory, pictures and JPEG, each at a small and a larger size.

All take turns, so each finds the caches full of others' data, as in a camera's process, and a disturbance is spread
over all. With one thread the processor's time counts, in which there is no other program's work; with more, the clock
on the wall. Of many rounds the lower quartile is taken: others only ever make one slower.
"""

from __future__ import annotations

import resource
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np

from edge_face import messages, settings
from edge_face.access import Access
from edge_face.bench import counts
from edge_face.bench.counts import Work
from edge_face.bench.results import Rates, Speed
from edge_face.bench.stages import gallery_of
from edge_face.capture import CameraThread, Grab
from edge_face.clips import ClipSource
from edge_face.clock import SystemClock
from edge_face.errors import EdgeFaceError
from edge_face.events import Box, FrameResult, TrackedFace
from edge_face.images import BgrImage
from edge_face.vision import models, quality
from edge_face.vision.detect import resized
from edge_face.vision.follow import Template
from edge_face.vision.interfaces import Detector, Encoder
from edge_face.vision.known_answer import test_chip
from edge_face.vision.motion import MotionGate

SECONDS = 10.0
SMALL, LARGE = (320, 240), (640, 480)
"""Pictures that are worked on; what a larger one costs follows from its arithmetic."""
THREADS = (1, 2)
_SCALE = 0.9
_FACE_PX = 160
_FRAMES = 8
_QUALITY = 90
_COPY_BYTES = 64 << 20
"""Of all that is copied and the copies, together: more than a cache holds, and no more than a small board has."""
_COPY_S = 0.04
_FRESH_BYTES = 48 << 20
_PAGE = resource.getpagesize()
_LEAST_ROUNDS = 2


@dataclass(slots=True)
class Probe:
    """One piece of work of a kind. `run` is given the number of the round."""

    kind: str
    threads: int
    work: Work
    run: Callable[[int], object]
    took_ms: list[float] = field(default_factory=list)

    def measure(self, number: int) -> None:
        cv2.setNumThreads(self.threads)
        clock = time.process_time if self.threads == 1 else time.perf_counter
        begin = clock()
        self.run(number)
        self.took_ms.append((clock() - begin) * 1000)

    @property
    def ms(self) -> float:
        return float(np.percentile(self.took_ms, 25))


def measure(options: settings.Engine, backend: str, cpus: int, seconds: float = SECONDS) -> Rates:
    """`backend`: one that is known to work here. Raises EdgeFaceError where the models cannot be loaded."""
    begin = time.monotonic()
    threads_before = cv2.getNumThreads()
    with ExitStack() as stack:
        probes = list(_probes(replace(options, backend=backend), cpus, stack))
        for probe in probes:
            probe.run(0)  # fills caches, and is not counted
        memory = _Copies()
        one: list[float] = []
        all_cores: list[float] = []
        fresh: list[float] = []
        number = 0
        while number < _LEAST_ROUNDS or time.monotonic() - begin < seconds:
            number += 1
            for probe in probes:
                probe.measure(number)
            one.append(memory.gbs(1))
            all_cores.append(memory.gbs(cpus))
            fresh.append(_fresh_gbs())
    cv2.setNumThreads(threads_before)
    kinds = dict.fromkeys((probe.kind, probe.threads) for probe in probes)
    speeds = tuple(speed_of(*key, [probe for probe in probes if (probe.kind, probe.threads) == key]) for key in kinds)
    alone, together, new = (round(float(np.percentile(each, 75)), 3) for each in (one, all_cores, fresh))
    return Rates(speeds, alone, max(alone, together), new, number, round(time.monotonic() - begin, 1))


def speed_of(kind: str, threads: int, probes: list[Probe]) -> Speed:
    """The line through the smaller and the larger work; through 0 where that would fall, or there is but one."""
    probes = sorted(probes, key=lambda probe: probe.work.flop)
    small, large = probes[0], probes[-1]
    if not large.work.flop:
        return Speed(kind, threads, 0.0, round(large.ms, 4))
    more_ms, more = large.ms - small.ms, large.work.flop - small.work.flop
    slope = more_ms / more if more else 0.0
    fixed = large.ms - slope * large.work.flop
    if slope <= 0 or fixed < 0:
        slope, fixed = large.ms / large.work.flop, 0.0
    return Speed(kind, threads, round(1e-6 / slope, 4), round(fixed, 4))


def _probes(options: settings.Engine, cpus: int, stack: ExitStack) -> Iterator[Probe]:
    pictures = {size: [_picture(*size, number) for number in range(_FRAMES)] for size in (SMALL, LARGE)}
    chip = test_chip()[None]
    loaded = models.load(replace(options, threads=1, detector="hog"))
    yunet = _with(options, "yunet", 1) if options.yunet_model else None
    for threads in THREADS[: max(1, cpus)]:
        cnn = _with(options, "cnn", threads)
        tried = {"hog": loaded if threads == 1 else None, "cnn": cnn, "yunet": yunet}  # dlib has one thread
        for detector, each in tried.items():
            if each:
                for size in (SMALL, LARGE):
                    work = counts.search(detector, *size, 0)
                    yield Probe(detector, threads, work, _search(each.detector, pictures[size]))
        for size in (SMALL, LARGE):
            yield Probe("scale", threads, counts.scale(*size, _SCALE), _scaling(pictures[size]))
        encoder = (cnn or models.load(replace(options, threads=threads, detector="hog"))).encoder
        yield Probe("encode", threads, counts.encoder(), _encoding(encoder, chip))
    yield from _picture_probes(pictures, loaded, stack)
    yield Probe("hand over", 1, Work(), _handing_over(stack))
    encoding = loaded.encoder.encode(chip)[0]
    gallery = gallery_of(encoding, counts.TEMPLATES)
    yield Probe("match", 1, Work(), lambda _: gallery.match([encoding]))


def _with(options: settings.Engine, detector: str, threads: int) -> models.Models | None:
    """None: that detector is not there."""
    try:
        return models.load(replace(options, threads=threads, detector=detector))
    except EdgeFaceError:
        return None


def _picture_probes(
    pictures: dict[tuple[int, int], list[BgrImage]], loaded: models.Models, stack: ExitStack
) -> Iterator[Probe]:
    """What is done to pictures on one thread."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-face-bench-")))
    for size, shown in pictures.items():
        yield Probe("grab", 1, counts.jpeg(*size), _grabbing(folder / f"{size[0]}.avi", shown, stack))
        coded = [cv2.imencode(".jpg", each, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1] for each in shown]
        yield Probe("decode", 1, counts.jpeg(*size), _decoding(coded))
        yield Probe("JPEG", 1, counts.jpeg(*size), _coding(shown))
        yield Probe("motion", 1, counts.motion(*size), _looking(shown))
    frame = pictures[LARGE][0]
    yield Probe("align", 1, counts.align(_FACE_PX), _aligning(loaded, frame, _FACE_PX))
    template = Template(frame, Box(200, 100, 350, 250))
    yield Probe("follow", 1, Work(), lambda _: template.find(frame, template.box))


def _search(detector: Detector, shown: list[BgrImage]) -> Callable[[int], object]:
    return lambda number: detector.detect(shown[number % _FRAMES])


def _encoding(encoder: Encoder, chip: BgrImage) -> Callable[[int], object]:
    return lambda _: encoder.encode(chip)


def _scaling(shown: list[BgrImage]) -> Callable[[int], object]:
    return lambda number: cv2.cvtColor(resized(shown[number % _FRAMES], _SCALE), cv2.COLOR_BGR2RGB)


def _decoding(coded: list[BgrImage]) -> Callable[[int], object]:
    return lambda number: cv2.imdecode(coded[number % _FRAMES], cv2.IMREAD_COLOR)


def _coding(shown: list[BgrImage]) -> Callable[[int], object]:
    return lambda number: cv2.imencode(".jpg", shown[number % _FRAMES], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])


def _looking(shown: list[BgrImage]) -> Callable[[int], object]:
    gate = MotionGate()

    def look(number: int) -> None:
        gate.look(shown[number % _FRAMES])
        gate.examined()

    return look


def _aligning(loaded: models.Models, frame: BgrImage, face_px: int) -> Callable[[int], object]:
    height, width = frame.shape[:2]
    reach = round(counts.ALIGN_REACH * face_px / 2)
    x, y = width // 2, height // 2
    edge = reach - face_px // 2
    box = Box(edge, edge, edge + face_px, edge + face_px)

    def align(_: int) -> None:
        cut = np.ascontiguousarray(frame[max(0, y - reach) : y + reach, max(0, x - reach) : x + reach])
        aligned = loaded.aligner.align(np.asarray(cv2.cvtColor(cut, cv2.COLOR_BGR2RGB), np.uint8), box)
        quality.measure(box, *aligned)

    return align


def _grabbing(path: Path, shown: list[BgrImage], stack: ExitStack) -> Callable[[int], object]:
    height, width = shown[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (width, height))
    writer.set(cv2.VIDEOWRITER_PROP_QUALITY, _QUALITY)
    for each in shown * 8:
        writer.write(each)
    writer.release()
    source = ClipSource(str(path), settings.Camera(realtime=False, loop=True), SystemClock())
    stack.callback(source.close)
    return lambda _: source.read()


class _Nothing:
    """A source whose frames cost nothing."""

    live, patient, description = False, True, "nothing"

    def __init__(self) -> None:
        self._image = np.zeros((16, 16, 3), np.uint8)

    def read(self) -> Grab:
        return Grab(self._image, 0.0, 0.0)

    def close(self) -> None:
        """Nothing is held."""


def _handing_over(stack: ExitStack) -> Callable[[int], object]:
    """A frame from the camera's thread, its result to the parent, and a decision."""
    camera = CameraThread(_Nothing, SystemClock())
    camera.start()
    stack.callback(camera.stop)
    ours, theirs = socket.socketpair()
    stack.callback(ours.close)
    stack.callback(theirs.close)
    child, parent = messages.Channel(ours), messages.Channel(theirs)
    access = Access(settings.Decision())
    face = TrackedFace(Box(0, 0, 99, 99), 1.0, 1, np.zeros(messages.ENCODING_SIZE, np.float32), None)

    def hand_over(number: int) -> None:
        camera.take(1.0)
        child.send(FrameResult("bench", number, 0, float(number), float(number), 640, 480, (face,), {}))
        result: FrameResult = parent.receive()
        access.observe(result, [None], float(number))

    return hand_over


class _Copies:
    """Memory to memory."""

    def __init__(self) -> None:
        self._memory = np.ones(_COPY_BYTES, np.uint8)

    def gbs(self, threads: int) -> float:
        """Gigabytes a second that so many threads read and write, together."""
        parts = np.array_split(self._memory, 2 * threads)
        gbs = [0.0] * threads
        end = time.perf_counter() + _COPY_S

        def copy(at: int) -> None:
            length, copied, begin = min(map(len, parts)), 0, time.thread_time()
            while not copied or time.perf_counter() < end:
                np.copyto(parts[2 * at][:length], parts[2 * at + 1][:length])
                copied += 2 * length
            gbs[at] = copied / (time.thread_time() - begin) / 1e9

        workers = [threading.Thread(target=copy, args=(at,)) for at in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return sum(gbs)


def _fresh_gbs() -> float:
    """Each page of an array is touched once."""
    begin = time.thread_time()
    np.empty(_FRESH_BYTES, np.uint8)[::_PAGE] = 1
    return _FRESH_BYTES / (time.thread_time() - begin) / 1e9


def _picture(width: int, height: int, seed: int) -> BgrImage:
    """Soft shapes and a sensor's noise; the same on every board."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = [np.sin((x + 9 * seed) / 23), np.sin(y / 17 + seed), np.sin((x + y) / 31)]
    noise = np.random.default_rng(seed).normal(0, 2, (height, width, 3))
    return np.clip(np.stack([127 + 90 * wave for wave in waves], axis=-1) + noise, 0, 255).astype(np.uint8)
