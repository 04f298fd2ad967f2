"""The main loops of the child processes: one that watches a camera, one that reads uploaded photos.

Started as `python -m edge_face.worker FD`; FD is one end of a socket pair. The first message says what to do. A child
ends when its parent is gone, and may be killed at any moment: it keeps nothing that matters.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edge_face import lifeline, logs, memory, photos, stills
from edge_face.capture import CameraThread, Frame, ThreadState
from edge_face.clock import SystemClock
from edge_face.engine import Engine
from edge_face.errors import EdgeFaceError, ImageError
from edge_face.events import Box, Face, FrameResult, TrackedFace
from edge_face.messages import (
    CameraJob,
    Channel,
    Failed,
    PauseWork,
    PhotoJob,
    PhotoResult,
    Photos,
    Ready,
    Settled,
    SlowDown,
    SourceState,
    Trying,
    Tune,
    WantJpeg,
    WantPicture,
)
from edge_face.sources import open_source
from edge_face.vision import models

_log = logging.getLogger("edge_face.worker")

STATE_EVERY_S = 0.5
"""How often a camera's child tells its state, with or without frames."""
UNBOUNDED_FPS = 20.0
"""What a share is taken of where frames are not bounded."""
PICTURE_QUALITY = 95
SMALL_PX, SMALL_QUALITY = 480, 70
"""A small picture's longer side; about 20 KB, so that it fits into a webhook's body."""
"""Of a single picture, from which somebody may be enrolled."""
_PHOTO_NICE = 10
"""Photos may take longer when a camera needs the processor."""
_CAMERA_SCORE, _PHOTO_SCORE = 200, 800
"""Who goes first when the machine is out of memory: photos, then a camera, which is started again; then the parent."""


class CameraLoop:
    """Newest frame in, FrameResult out, for ever."""

    def __init__(self, job: CameraJob, channel: Channel) -> None:
        self._job = job
        self._channel = channel
        self._clock = SystemClock()
        self._want_jpeg = threading.Event()
        self._want_picture = threading.Event()
        self._want_small = threading.Event()
        self._paused = threading.Event()
        self._was_paused = False
        self._told = ""
        self._state_due = 0.0

    def run(self) -> None:
        job = self._job
        loaded = _load(job, self._channel)
        engine = self._engine = Engine(
            loaded,
            job.engine,
            scale=job.source.scale,
            track_memory_s=job.track_memory_s,
            first_track=job.first_track,
            known=job.known,
            max_age_s=job.max_age_s,
        )
        self._channel.send(_ready(loaded))
        _mute_libraries()
        source = job.source
        thread = self._camera = CameraThread(
            lambda: open_source(source, self._clock), self._clock, source.fps, source.frozen
        )
        threading.Thread(target=self._listen, daemon=True).start()
        thread.start()
        epoch = scene = 0
        while True:
            frame = thread.take(STATE_EVERY_S)
            if frame is not None:
                if frame.round != scene:
                    engine.reset()
                elif frame.epoch != epoch:
                    engine.interrupted()
                epoch, scene = frame.epoch, frame.round
                self._tell(replace(thread.state, name="ok"))
                self._channel.send(self._judge(engine, frame))
            state = thread.state
            self._tell(state)
            if state.name == "ended":
                return

    def _tell(self, state: ThreadState) -> None:
        """The camera's state: at once when it changed, else twice a second as a sign of life."""
        now = self._clock.monotonic()
        if state.name != self._told or now >= self._state_due:
            self._told, self._state_due = state.name, now + STATE_EVERY_S
            self._channel.send(SourceState(state.name, state.detail, state.blocked_s))

    def _judge(self, engine: Engine, frame: Frame) -> FrameResult:
        faces: tuple[TrackedFace, ...] = ()
        stages_ms: dict[str, float] = {}
        if self._paused.is_set():
            self._was_paused = True
        else:
            if self._was_paused:
                engine.reset()
                self._was_paused = False
            faces, stages_ms = engine.process(frame.image, frame.grabbed_at)
            if self._job.thumbnails:
                faces = tuple(_with_thumbnail(face, frame.image) for face in faces)
        height, width = frame.image.shape[:2]
        return FrameResult(
            camera=self._job.camera,
            number=frame.number,
            epoch=frame.round,  # a loss interrupts a visit, only a clip's new start ends it
            grabbed_at=frame.grabbed_at,
            timestamp=frame.timestamp,
            width=width,
            height=height,
            faces=faces,
            stages_ms=stages_ms,
            dropped=frame.dropped,
            jpeg=self._picture(frame),
            small_jpeg=self._small_picture(frame),
        )

    def _picture(self, frame: Frame) -> bytes | None:
        if self._want_picture.is_set():
            self._want_picture.clear()
            return _jpeg(frame.image, max(PICTURE_QUALITY, self._job.jpeg_quality))
        return _jpeg(frame.image, self._job.jpeg_quality) if self._want_jpeg.is_set() else None

    def _small_picture(self, frame: Frame) -> bytes | None:
        if not self._want_small.is_set():
            return None
        self._want_small.clear()
        height, width = frame.image.shape[:2]
        reduction = min(1.0, SMALL_PX / max(height, width))
        size = max(1, round(width * reduction)), max(1, round(height * reduction))
        reduced = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
        return _jpeg(np.asarray(reduced, np.uint8), SMALL_QUALITY)

    def _listen(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                message = self._channel.receive()
                if isinstance(message, WantJpeg):
                    (self._want_jpeg.set if message.wanted else self._want_jpeg.clear)()
                elif isinstance(message, WantPicture):
                    (self._want_small if message.small else self._want_picture).set()
                elif isinstance(message, PauseWork):
                    (self._paused.set if message.paused else self._paused.clear)()
                elif isinstance(message, SlowDown):
                    usual = self._job.source.fps
                    self._camera.limit(usual if message.share == 1 else (usual or UNBOUNDED_FPS) * message.share)
                elif isinstance(message, Settled):
                    self._engine.settled(message.tracks)
                elif isinstance(message, Tune):
                    self._tune(message)
        os._exit(0)  # the parent is gone; a native call in the main thread must not keep this process

    def _tune(self, new: Tune) -> None:
        """The camera goes on."""
        logs.use_level(new.log_level)
        self._engine.tune(new.track_memory_s, new.max_age_s)
        self._job = replace(self._job, jpeg_quality=new.jpeg_quality)


class PhotoLoop:
    """One photo after the other, or a few together, until they want too much memory: what a library does after that is
    anybody's guess.
    """

    def __init__(self, job: PhotoJob, channel: Channel) -> None:
        self._channel = channel
        self._thumbnails = job.thumbnails
        self._models = _load(job, channel)
        channel.send(_ready(self._models))

    def run(self) -> None:
        while True:
            message = self._channel.receive()
            if isinstance(message, Photos):
                data = [self._channel.receive_bytes(size) for size in message.sizes]
                try:
                    results = self._analyse(message, data)
                except MemoryError:
                    if len(data) == 1:  # of several, the parent tries each alone
                        self._channel.send(PhotoResult(message.id, error="too_large", message=photos.TOO_MUCH_MEMORY))
                    return
                for result in results:
                    self._channel.send(result)

    def _analyse(self, asked: Photos, data: Sequence[bytes | bytearray]) -> list[PhotoResult]:
        """Raises MemoryError."""
        try:
            read = [_decoded(each) for each in data]
            pictures = [each.pixels for each in read if isinstance(each, photos.Picture)]
            found = iter(stills.faces(self._models, pictures, asked.rivals))
            return [
                self._result(asked.id, each, next(found))
                if isinstance(each, photos.Picture)
                else _refused(asked.id, each)
                for each in read
            ]
        except cv2.error as error:
            if error.code == cv2.Error.StsNoMem:
                raise MemoryError from error
            raise

    def _result(self, id: int, picture: photos.Picture, faces: tuple[Face, ...]) -> PhotoResult:
        if self._thumbnails and faces:
            try:
                faces = (replace(faces[0], thumbnail=photos.thumbnail(picture.pixels, faces[0].box)), *faces[1:])
            except ImageError as error:
                return _refused(id, error)
        enlarged = tuple(_enlarged(face, picture.reduced) for face in faces)
        return PhotoResult(id, picture.width, picture.height, enlarged)


def _decoded(data: bytes | bytearray) -> photos.Picture | ImageError:
    """Raises MemoryError."""
    try:
        return photos.decode(data)
    except ImageError as error:
        return error


def _refused(id: int, error: ImageError) -> PhotoResult:
    return PhotoResult(id, error=error.code, message=error.message)


def _with_thumbnail(face: TrackedFace, image: npt.NDArray[np.uint8]) -> TrackedFace:
    """Only of a face that was looked at anew: next to encoding it, this costs nothing."""
    if face.encoding is None:
        return face
    with contextlib.suppress(ImageError):
        return replace(face, thumbnail=photos.thumbnail(image, face.box, bgr=True))
    return face


def _enlarged(face: Face, factor: int) -> Face:
    """With its box in the pixels of the whole picture, of which a reduced one was searched."""
    box = face.box
    return replace(face, box=Box(box.x1 * factor, box.y1 * factor, box.x2 * factor, box.y2 * factor))


def _load(job: CameraJob | PhotoJob, channel: Channel) -> models.Models:
    """The parent hears of each backend before it is tried: some kill the process on some boards."""
    cv2.setNumThreads(models.thread_count(job.engine))
    return models.load(job.engine, job.skip_backends, lambda backend: channel.send(Trying(backend)))


def _mute_libraries() -> None:
    """Only Python goes on writing to stderr: libjpeg has a line there for each damaged picture of a bad USB cable."""
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stderr)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123  # a name, not a path of ours
        os.dup2(nowhere.fileno(), 2)


def _ready(loaded: models.Models) -> Ready:
    return Ready(loaded.backend, loaded.detector.name, loaded.refused, loaded.encode_ms)


def _jpeg(image: npt.NDArray[np.uint8], quality: int) -> bytes | None:
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes() if done else None


def _serve(channel: Channel) -> None:
    job: Any = channel.receive()
    logs.configure(job.log_level)
    logging.getLogger("edge_face.capture").setLevel(
        "ERROR"
    )  # the parent logs losses and returns, with the camera's name
    try:
        if isinstance(job, CameraJob):
            memory.first_to_go(_CAMERA_SCORE)
            CameraLoop(job, channel).run()
        else:
            # Of a hostile photo the libraries have much to say; whoever sent it hears the gist.
            warnings.simplefilter("ignore")
            logging.getLogger("PIL").setLevel("CRITICAL")
            memory.first_to_go(_PHOTO_SCORE)
            os.nice(_PHOTO_NICE)
            loop = PhotoLoop(job, channel)
            memory.limit_growth()
            loop.run()
    except EdgeFaceError as error:
        channel.send(Failed(error.message))
        raise SystemExit(1) from None


if __name__ == "__main__":
    lifeline.live(_serve)
