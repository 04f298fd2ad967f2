"""A frame goes in, faces come out, and nothing is done twice. No I/O, so tests and benchmarks call it directly.

Where the picture has not changed, nothing is searched. Where it has, known faces are followed by their look; the whole
frame is searched when something moves elsewhere, and every few frames. A face is encoded when it is new, while its
decision is open, when it is seen better than before, when it may have been mixed up with another, and now and then.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np

from edge_face import settings, stills
from edge_face.events import Box, Encoding, Face, KnownTrack, Quality, TrackedFace
from edge_face.images import BgrImage, RgbImage
from edge_face.vision import quality
from edge_face.vision.budget import Budget
from edge_face.vision.detect import detect, resized, search_scale
from edge_face.vision.follow import Template
from edge_face.vision.interfaces import Aligned, Detection
from edge_face.vision.models import Models
from edge_face.vision.motion import Motion, MotionGate
from edge_face.vision.track import VIEWS, Track, Tracker

SEARCH_EVERY_FRAMES = 15
"""While something moves, the whole frame is searched at least this often."""
SEARCH_EVERY_S = 10.0
"""And even where nothing moves: a face that was missed once must not be missed for ever."""
DETECT_EVERY_FRAMES = 5
"""A followed face is detected anew this often, since following does not notice that it grows or turns."""
RECHECK_S = 1.0
"""A settled track is encoded again after this time."""
RECHECK_FRAMES = 3
"""But not more often than every so many frames, for a board or a clip that has fewer in a second."""
BETTER_VIEW = 1.5
"""A view is clearly better when its quality score is this many times the best one's."""
_FAR_FACE = 1 / 4
"""Of the frame's height: larger faces are found by every search, however coarse it has to be."""

_LOCAL_MARGIN = 0.6
"""What is searched around a known face, in widths on each side."""
_ALIGN_MARGIN = 0.8
"""What alignment needs around a box: the chip's padding and the corners of a tilted head."""

_SAME_PLACE = 0.3
_SURELY_FOUND = 0.8
"""Detectors miss some faces that are just large enough."""
_MISSES = 2
"""Whole searches in a row in which a face may be missed."""
_LOCAL_SIZE = 1.4
"""A face is searched around its last place at this many times the smallest size that the detector finds."""


class Stopwatch:
    """Milliseconds by stage."""

    def __init__(self) -> None:
        self.stages_ms: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.stages_ms[name] = self.stages_ms.get(name, 0.0) + (time.perf_counter() - begin) * 1000


@dataclass(slots=True, eq=False)
class _View:
    """One face of the present frame. `track` is None while it is not known whose it is."""

    box: Box
    confidence: float
    track: Track | None
    detected: bool
    """False: merely followed, or unchanged."""
    aligned: Aligned | None = None
    quality: Quality | None = None
    encoding: Encoding | None = None


class Engine:
    """Finds, follows, aligns and encodes. Not thread-safe: one engine per camera."""

    def __init__(
        self,
        models: Models,
        options: settings.Engine,
        *,
        scale: float | None = None,
        track_memory_s: float = 5.0,
        first_track: int = 1,
        known: Iterable[KnownTrack] = (),
        max_age_s: float = 1.0,
    ) -> None:
        """`max_age_s`: a frame that is judged later than that after its grab is of no use."""
        self._models = models
        self._budget = Budget(max_age_s, models.encode_ms / 1000)
        self._left_out = False
        """The last search found new faces for which there was no time."""
        self._options = options
        self._scale = search_scale(scale, options.min_face, models.detector)
        self._scale_is_auto = scale is None
        self._tracker = Tracker(track_memory_s, first_track, known)
        self._motion = MotionGate()
        self._settled: Collection[int] = frozenset()
        self._frame = 0
        self._size: tuple[int, ...] = ()
        self._searched_frame = 0
        self._searched_at = float("-inf")
        self.counts = {"search": 0, "local": 0, "encode": 0}
        """How often the costly things were done."""

    def tune(self, track_memory_s: float, max_age_s: float) -> None:
        """From the next frame on; may be called by another thread."""
        self._tracker.memory_s = track_memory_s
        self._budget.max_age_s = max_age_s

    @property
    def backend(self) -> str:
        return self._models.backend

    @property
    def detector(self) -> str:
        return self._models.detector.name

    @property
    def scale(self) -> float:
        return self._scale

    def reset(self) -> None:
        """Forget all tracks, because what comes next is another scene."""
        self._tracker.reset()
        self._motion.reset()
        self._searched_at = float("-inf")

    def interrupted(self) -> None:
        """Frames are missing before the next one: whoever is still there is known by their looks alone."""
        self._tracker.interrupt()
        self._motion.reset()
        self._searched_at = float("-inf")

    def settled(self, tracks: Collection[int]) -> None:
        """Tracks whose decision stands, so that they are encoded only now and then. All others always are."""
        self._settled = frozenset(tracks)

    def process(self, bgr: BgrImage, grabbed_at: float) -> tuple[tuple[TrackedFace, ...], dict[str, float]]:
        """Faces of a frame, (height, width, 3) BGR, grabbed at that time (monotonic seconds), and the stages' times."""
        watch = Stopwatch()
        if bgr.shape != self._size:
            self.interrupted()  # the boxes of known faces mean nothing in another resolution
            self._size = bgr.shape
        self._frame += 1
        self._tracker.forget_old(grabbed_at)
        with watch.stage("motion"):
            motion = self._motion.look(bgr)
        with watch.stage("follow"):
            for track in self._tracker.in_view:
                if motion.within(track.box):
                    track.follow(bgr)
        if self._search_is_due(motion, grabbed_at):
            views = self._search(bgr, motion, grabbed_at, watch)
        else:
            views = self._look_around(bgr, motion, watch)
        self._identify(bgr, views, grabbed_at, watch)
        return tuple(self._faces(views)), watch.stages_ms

    def still(self, image: RgbImage, rivals: float = 0.0) -> tuple[Face, ...]:
        """Faces of a photo, as `stills.faces` says; `min_face` is a matter of cameras and does not hold here."""
        return stills.faces(self._models, (image,), rivals)[0]

    def _search_is_due(self, motion: Motion, now: float) -> bool:
        since = now - self._searched_at
        if since >= SEARCH_EVERY_S:
            return True
        if self._tracker.in_view and self._budget.rests(since):
            return False
        if self._left_out:
            return True
        if not motion.any:
            return False
        known = [_grown(track.box, _LOCAL_MARGIN) for track in self._tracker.in_view]
        return self._frame - self._searched_frame >= SEARCH_EVERY_FRAMES or motion.outside(known)

    def _reduction(self, height: int, now: float) -> float:
        """How much coarser than at its own scale to search this frame; the user's own scale is kept."""
        if not self._scale_is_auto:
            return 1.0
        least = self._options.min_face / (_FAR_FACE * height)
        if self._options.max_face:
            least = max(least, 2 * self._options.min_face / self._options.max_face)
        return self._budget.reduction(least, now)

    def _search(self, bgr: BgrImage, motion: Motion, now: float, watch: Stopwatch) -> list[_View]:
        """Look at the whole frame."""
        options = self._options
        reduction = self._reduction(bgr.shape[0], now)
        scale, smallest = self._scale * reduction, round(options.min_face / reduction)
        begin = time.perf_counter()
        with watch.stage("scale"):
            searched = _rgb(resized(bgr, scale))
        with watch.stage("detect"):
            found = detect(searched, self._models.detector, scale, smallest, options.max_face)
        self._budget.searched(time.perf_counter() - begin, reduction, now)
        self.counts["search"] += 1
        self._searched_at, self._searched_frame = now, self._frame
        tracks = self._tracker.pair([detection.box for detection in found])
        views = [
            _View(detection.box, detection.confidence, tracks.get(index), detected=True)
            for index, detection in enumerate(found)
        ]
        paired = list(tracks.values())
        for track in [track for track in self._tracker.in_view if track not in paired]:
            if reduction < 1 and track.box.width * _SURELY_FOUND < smallest:
                views += self._look_at(track, bgr, motion, watch)  # too small for this search
                continue
            # The detector does not see every face in every frame. One that still looks the same is still there, unless
            # it has been missed too often, or its place is taken.
            track.missed += 1
            taken = any(track.box.iou(view.box) > _SAME_PLACE for view in views)
            if track.doubtful or taken or track.missed > _MISSES:
                self._tracker.leave(track)
            else:
                views.append(_View(track.box, track.confidence, track, detected=False))
        self._motion.examined()
        return views

    def _look_around(self, bgr: BgrImage, motion: Motion, watch: Stopwatch) -> list[_View]:
        """Look only where faces are known to be."""
        return [view for track in list(self._tracker.in_view) for view in self._look_at(track, bgr, motion, watch)]

    def _look_at(self, track: Track, bgr: BgrImage, motion: Motion, watch: Stopwatch) -> list[_View]:
        """One face where it is known to be; nothing when it is not there any more."""
        area = _grown(track.box, _LOCAL_MARGIN)
        if not motion.within(area):
            return [_View(track.box, track.confidence, track, detected=False)]
        found: Detection | None = None
        if track.doubtful or self._frame - track.detected_frame >= DETECT_EVERY_FRAMES:
            with watch.stage("detect"):
                found = self._detect_around(bgr, track.box)
        self._motion.examined(area)
        if found:
            return [_View(found.box, found.confidence, track, detected=True)]
        if track.doubtful:
            self._tracker.leave(track)
            return []
        return [_View(track.box, track.confidence, track, detected=False)]

    def _detect_around(self, bgr: BgrImage, box: Box) -> Detection | None:
        """The face most like `box` in place within its surroundings."""
        self.counts["local"] += 1
        area = _clipped(_grown(box, _LOCAL_MARGIN), bgr)
        scale = min(1.0, _LOCAL_SIZE * self._models.detector.smallest_px / max(1, box.width))
        crop = bgr[area.y1 : area.y2, area.x1 : area.x2]
        if crop.size == 0:
            return None
        # From one frame to the next a face does not double; what cannot be it need not be searched for.
        smallest = max(self._options.min_face, round(box.width * 0.7))
        image = _rgb(resized(np.ascontiguousarray(crop), scale))
        found = detect(image, self._models.detector, scale, smallest, round(box.width * 1.5))
        moved = [Detection(_moved(one.box, area.x1, area.y1), one.confidence) for one in found]
        near = [one for one in moved if one.box.iou(box) >= _SAME_PLACE]
        return max(near, key=lambda one: one.box.iou(box), default=None)

    def _identify(self, bgr: BgrImage, views: list[_View], now: float, watch: Stopwatch) -> None:
        """Encode what has to be, in one batch, and settle whose track each view is."""
        with watch.stage("align"):
            wanted = self._in_time([view for view in views if self._is_worth_encoding(bgr, view, now)])
            for view in wanted:
                self._align(bgr, view)
        if wanted:
            begin = time.perf_counter()
            with watch.stage("encode"):
                chips = np.stack([view.aligned.chip for view in wanted if view.aligned])
                encodings = self._models.encoder.encode(chips)
            self._budget.encoded(len(wanted), time.perf_counter() - begin)
            self.counts["encode"] += len(wanted)
            for view, encoding in zip(wanted, encodings, strict=True):
                if np.isfinite(encoding).all():
                    view.encoding = encoding
        with watch.stage("track"):
            self._assign(bgr, views, now)

    def _in_time(self, wanted: list[_View]) -> list[_View]:
        """Those for whom there is time in this frame; the others have their turn in the next ones.

        Who was begun with is looked at to the end first. Then whoever waits longest, and of new faces the nearest.
        """
        most = self._budget.faces

        def turn(view: _View) -> tuple[bool, int, int]:
            begun = view.track is not None and 0 < len(view.track.views) < VIEWS
            return not begun, view.track.encoded_frame if view.track else -1, -view.box.area

        chosen, left = wanted, list[_View]()
        if len(wanted) > most:
            wanted = sorted(wanted, key=turn)
            chosen, left = wanted[:most], wanted[most:]
        self._left_out = any(view.track is None for view in left)
        return chosen

    def _is_worth_encoding(self, bgr: BgrImage, view: _View, now: float) -> bool:
        track = view.track
        if track is None or track.doubtful or track.id not in self._settled:
            return True
        if now - track.encoded_at >= RECHECK_S and self._frame - track.encoded_frame >= RECHECK_FRAMES:
            return True
        if not view.detected:
            return False
        self._align(bgr, view)
        return view.quality is not None and quality.score(view.quality) > BETTER_VIEW * track.best_score

    def _align(self, bgr: BgrImage, view: _View) -> None:
        if view.aligned is not None:
            return
        area = _clipped(_grown(view.box, _ALIGN_MARGIN), bgr)
        image = _rgb(np.ascontiguousarray(bgr[area.y1 : area.y2, area.x1 : area.x2]))
        view.aligned = self._models.aligner.align(image, _moved(view.box, -area.x1, -area.y1))
        view.quality = quality.measure(view.box, *view.aligned)

    def _assign(self, bgr: BgrImage, views: list[_View], now: float) -> None:
        for view in views:
            track, encoding = view.track, view.encoding
            if track and encoding is not None and track.views and not self._tracker.verify(track, encoding):
                self._tracker.leave(track)  # somebody else stands there now
                track = None
            if track is None:
                if encoding is None:
                    continue
                track = self._tracker.recall(view.box, encoding, now)
            view.track = track
            track.box, track.confidence, track.last_seen = view.box, view.confidence, now
            if view.detected or track.template is None:
                track.detected_frame, track.missed = self._frame, 0
                track.template = Template(bgr, view.box)
            if encoding is not None:
                track.views.append(encoding)
                track.doubtful = False
                track.encoded_at, track.encoded_frame = now, self._frame
                if view.quality:
                    track.best_score = max(track.best_score, quality.score(view.quality))

    def _faces(self, views: list[_View]) -> Iterator[TrackedFace]:
        for view in views:
            if view.track is not None:
                yield TrackedFace(view.box, view.confidence, view.track.id, view.encoding, view.quality)


def _grown(box: Box, margin: float) -> Box:
    dx, dy = round(box.width * margin), round(box.height * margin)
    return Box(box.x1 - dx, box.y1 - dy, box.x2 + dx, box.y2 + dy)


def _clipped(box: Box, bgr: BgrImage) -> Box:
    height, width = bgr.shape[:2]
    return Box(max(0, box.x1), max(0, box.y1), min(width, box.x2), min(height, box.y2))


def _moved(box: Box, dx: int, dy: int) -> Box:
    return Box(box.x1 + dx, box.y1 + dy, box.x2 + dx, box.y2 + dy)


def _rgb(bgr: BgrImage) -> RgbImage:
    """dlib's networks were trained on RGB; OpenCV delivers BGR."""
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)
