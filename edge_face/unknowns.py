"""Unknown visitors, while they are kept: which of them a visit is, and one note of it in the database.

What is noted is a REJECT `unknown` of a camera, some seconds later, with the best views of the visit. A face that could
not be enrolled (blurred, turned away, ...) is not noted: bad views of different people look alike. A visit in which
somebody is identified after all was no stranger's.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from edge_face import settings
from edge_face.access import judge
from edge_face.blobs import DIMENSIONS
from edge_face.clock import Clock
from edge_face.database import StoreThread
from edge_face.errors import NotFoundError, StoreError
from edge_face.events import Decision, Encoding, FrameResult, InView, Match, Person, Verdict
from edge_face.gallery import Gallery
from edge_face.pages import Page
from edge_face.store import Store
from edge_face.vision import quality
from edge_face.vision.track import SURELY_SAME_FACE
from edge_face.visitors import SeenVisit, Visitor

_log = logging.getLogger(__name__)

SAME_VISITOR = 0.45
"""Distance up to which a visit is another one of a visitor who is kept; nothing opens by it. Of pairs of views of one
sitting (Yale, various lights and expressions) 11 % are farther apart, and 30 % more than 0.4; of strangers 3 % are as
near to one of 1,600 others (LFW), and 11 % within 0.5."""
LOOKS = 3
"""Views of a visit that are kept."""
NOTE_AFTER_S = 3.0
"""From the REJECT to the note: the next looks may be better, or show that it is somebody after all."""
LOOK_EVERY_S = 0.5
SWEEP_EVERY_S = 2.0
RETRY_S = 30.0
"""After the database could not be used for what is not lost by waiting."""
_MOST_VISITS = 200
_LARGEST_JPEG = 64 * 1024
_AT_ONCE = 100
_ROUNDING = 0.01


@dataclass(frozen=True, eq=False, slots=True)
class _Look:
    encoding: Encoding
    quality: float
    jpeg: bytes


@dataclass(slots=True, eq=False)
class _Visit:
    """A track that somebody unknown is."""

    seen_at: float
    looks: list[_Look] = field(default_factory=list)
    """The best first."""
    id: str | None = None
    """Of the visitor, from the REJECT on."""
    decision: Decision | None = None
    """While it is to be noted."""
    due: float = 0.0
    noted: bool = False


class Unknowns:
    """Works on the event loop. What the disk does not take is lost and counted; nobody waits for it."""

    def __init__(
        self,
        store: Store,
        thread: StoreThread,
        config: settings.Config,
        clock: Clock,
        synced: Callable[[], bool],
    ) -> None:
        """`synced`: whether the wall clock is."""
        self._store = store
        self._thread = thread
        self.kept = config.storage.keep_unknowns
        self._decision = config.decision
        self._clock = clock
        self._synced = synced
        self._visits: dict[tuple[str, int], _Visit] = {}
        self._taken_back: list[str] = []
        self._known: Gallery | None = None
        """The kept visitors as people whose names are their ids; None until they were read."""
        self._gallery = Gallery.empty()
        self._sweep_at = 0.0
        self._swept_at = 0.0
        self.enrolling = asyncio.Lock()
        """One at a time, so that nobody becomes two people."""
        self._losing = False
        self.lost = 0
        """Visits that could not be noted."""
        self.gave_way = 0

    def use(self, decision: settings.Decision) -> None:
        self._decision = decision

    def judged(self, result: FrameResult, matches: Sequence[Match | None], verdicts: Sequence[Verdict]) -> None:
        """A frame. Keeps the best views of everybody whom nobody knows."""
        if not self.kept:
            return
        now = self._clock.monotonic()
        stale = not 0 <= now - result.grabbed_at <= self._decision.max_age
        for face, match, verdict in zip(result.faces, matches, verdicts, strict=True):
            key = (result.camera, face.track)
            if verdict.person is not None:
                self._identified(key)
                continue
            visit = self._visits.get(key)
            if visit:
                visit.seen_at = now
            if face.encoding is None or face.quality is None or face.thumbnail is None or match is None or stale:
                continue
            if judge(match, self._decision) != "unknown" or any(quality.flaws(face.quality)):
                continue
            if len(face.thumbnail) > _LARGEST_JPEG:
                continue
            if visit is None:
                visit = self._begin(key)
            if not visit.noted:
                visit.looks.append(_Look(face.encoding, quality.score(face.quality), face.thumbnail))
                visit.looks.sort(key=lambda look: -look.quality)
                del visit.looks[LOOKS:]

    def decided(self, decision: Decision) -> None:
        """What came of the frames, to be told after them."""
        if not self.kept or decision.verdict.reason != "unknown":
            return
        key = (decision.camera, decision.verdict.track)
        visit = self._visits.get(key) or self._begin(key)
        if visit.decision is None and not visit.noted:
            visit.id = self._id_of(visit.looks) or self._pending_id(visit.looks) or _new_id()
            visit.decision, visit.due = decision, self._clock.monotonic() + NOTE_AFTER_S

    def named(self, seen: InView) -> InView:
        """With the visitor's id, if it is one."""
        visit = self._visits.get((seen.camera, seen.verdict.track))
        if visit is None or visit.id is None:
            return seen
        return InView(seen.camera, seen.verdict, visit.id)

    def use_gallery(self, gallery: Gallery) -> None:
        """Whoever is enrolled now is no unknown visitor any more; soon."""
        self._gallery = gallery
        self._sweep_at = min(self._sweep_at, self._swept_at + SWEEP_EVERY_S)

    async def run(self) -> None:
        """Note visits, for ever. While nothing is kept: erase what is there of the time when it was."""
        failing = False
        while True:
            try:
                await (self._work() if self.kept else self._forget())
                failing = False
            except StoreError as error:
                if not failing:
                    _log.error("unknown visitors cannot be read or erased: %s", error)
                failing = True
            await asyncio.sleep(RETRY_S if failing else LOOK_EVERY_S)

    async def flush(self) -> None:
        """Before the end: note what is still to be noted."""
        await self._note_all(float("inf"))

    async def _work(self) -> None:
        """Raises StoreError."""
        if self._known is None:
            await self._read()
        await self._note_all(self._clock.monotonic())
        if taken_back := list(self._taken_back):
            await self.forget(taken_back)
            del self._taken_back[: len(taken_back)]
        if self._clock.monotonic() >= self._sweep_at:
            await self._sweep()

    async def _forget(self) -> None:
        """Raises StoreError."""
        if erased := await self._thread.run(self._store.forget_visitors):
            _log.info("%d unknown visitors were erased, as [storage] keep_unknowns is off", erased)
        await asyncio.Event().wait()  # there is nothing more to do

    async def page(self, limit: int | None, cursor: str | None, *, ignored: bool = False) -> Page[Visitor]:
        """Who came last stands first. Raises RequestError."""
        page = await self._thread.run(self._store.visitors, limit, cursor, ignored=ignored)
        return page if self.kept else Page([], None)

    async def visitor(self, id: str) -> Visitor:
        """Raises NotFoundError, as the next ones."""
        self._require(id)
        return await self._thread.run(self._store.visitor, id)

    async def picture(self, id: str) -> bytes:
        self._require(id)
        return await self._thread.run(self._store.visitor_picture, id)

    async def faces(self, id: str) -> list[Encoding]:
        """The templates, the best first."""
        self._require(id)
        return await self._thread.run(self._store.visitor_faces, id)

    async def ignore(self, id: str) -> Visitor:
        """Not to be listed again, however often they come."""
        self._require(id)
        return await self._thread.run(self._store.ignore_visitor, id)

    async def erase(self, id: str) -> Visitor:
        """Forget a visitor wholly."""
        visitor = await self.visitor(id)
        await self.forget([visitor.id])
        return visitor

    async def forget(self, ids: Sequence[str]) -> None:
        """Erase those of them who are kept. Raises StoreError."""
        await self._thread.run(self._store.erase_visitors, ids)
        for visit in self._visits.values():
            if visit.id in ids:
                visit.id = _new_id()  # whoever still stands there is somebody new
        await self._read()

    async def purge(self, before: float, batch: int) -> int:
        """Erase up to `batch` whose last visit is older than `before` (Unix seconds). Raises StoreError."""
        purged = await self._thread.run(self._store.purge_visitors, before, batch)
        if purged:
            await self._read()
        return purged

    def status(self) -> dict[str, int]:
        return {"kept": len(self._known or ()), "lost": self.lost, "gave_way": self.gave_way}

    def _require(self, id: str) -> None:
        if not self.kept:
            raise NotFoundError(f"There is no unknown visitor {id}")

    def _identified(self, key: tuple[str, int]) -> None:
        """It was no stranger; what is noted already is taken back."""
        visit = self._visits.pop(key, None)
        if visit and visit.noted and visit.id:
            self._taken_back.append(visit.id)

    def _begin(self, key: tuple[str, int]) -> _Visit:
        if len(self._visits) >= _MOST_VISITS:
            oldest = self._visits.pop(next(iter(self._visits)))
            self.lost += oldest.decision is not None and not oldest.noted
        visit = self._visits[key] = _Visit(self._clock.monotonic())
        return visit

    def _id_of(self, looks: Sequence[_Look]) -> str | None:
        """Who of the kept visitors looks like this."""
        if not looks or self._known is None:
            return None
        matches = self._known.match([look.encoding for look in looks])
        nearest = min(matches, key=lambda match: float("inf") if match.distance is None else match.distance)
        if nearest.person is None or nearest.distance is None or not nearest.distance <= SAME_VISITOR:
            return None
        return nearest.person.id

    def _pending_id(self, looks: Sequence[_Look]) -> str | None:
        """Whose visit, not noted yet, was of this face: they went and came back, or stand before two cameras."""
        found = [
            (_distance(look, other), visit.id)
            for visit in self._visits.values()
            if visit.decision is not None
            for other in visit.looks
            for look in looks
        ]
        distance, id = min(found, key=lambda pair: pair[0], default=(float("inf"), None))
        return id if distance <= SAME_VISITOR else None

    async def _note_all(self, now: float) -> None:
        for key, visit in list(self._visits.items()):
            if self._visits.get(key) is not visit:
                continue  # somebody after all, as was seen meanwhile
            if visit.decision is not None and visit.due <= now:
                await self._note(visit, visit.decision)
            elif visit.decision is None and now - visit.seen_at > self._decision.presence_timeout:
                self._visits.pop(key, None)  # the track's number does not come back

    async def _note(self, visit: _Visit, decision: Decision) -> None:
        """Until that is done, also on a slow disk, its looks tell whose the next visit is."""
        try:
            await self._write(visit, decision)
        finally:
            visit.decision, visit.looks = None, []

    async def _write(self, visit: _Visit, decision: Decision) -> None:
        # Comparisons are so that NaN is like nothing.
        looks = [look for look in visit.looks if _distance(look, visit.looks[0]) <= SURELY_SAME_FACE]
        encodings = [look.encoding for look in looks]
        if not looks or any(judge(match, self._decision) == "match" for match in self._gallery.match(encodings)):
            return  # seen too badly, or enrolled since
        visit.noted = True
        visit.id = self._id_of(looks) or visit.id or _new_id()
        seen = SeenVisit(
            *(decision.camera, decision.timestamp, decision.grabbed_at, self._synced()),
            *(encodings, looks[0].quality, looks[0].jpeg),
        )
        try:
            gone = await self._thread.run(self._store.note_visitor, visit.id, seen)
            await self._read()
        except StoreError as error:
            if not self._losing:
                _log.error("an unknown visitor could not be noted, and the next ones are only counted: %s", error)
            self._losing = True
            self.lost += 1
            return
        self._losing = False
        if gone:
            self.gave_way += gone
            _log.info("the unknown visitor who came longest ago gave way to a newer one")

    async def _sweep(self) -> None:
        """Erase who is enrolled now. Raises StoreError."""
        self._sweep_at, self._swept_at = float("inf"), self._clock.monotonic()
        known, gallery = self._known, self._gallery
        if not known or not gallery:
            return
        try:
            if enrolled := await asyncio.to_thread(_enrolled, known, gallery, self._decision):
                await self.forget(enrolled)
        except StoreError:
            self._sweep_at = 0.0
            raise

    async def _read(self) -> None:
        """Raises StoreError."""
        self._known = await self._thread.run(self._read_all)

    def _read_all(self) -> Gallery:
        rows = self._store.visitor_templates()
        owners = np.repeat(np.arange(len(rows), dtype=np.int32), [len(templates) for _, templates in rows])
        matrix = np.concatenate([np.empty((0, DIMENSIONS), np.float32), *(templates for _, templates in rows)])
        return Gallery.build([Person(id, id) for id, _ in rows], owners, matrix)


def _new_id() -> str:
    return str(uuid.uuid4())


def _distance(one: _Look, other: _Look) -> float:
    return float(np.linalg.norm(one.encoding - other.encoding))


def _enrolled(known: Gallery, gallery: Gallery, options: settings.Decision) -> list[str]:
    """Ids of the visitors who would pass now. Takes a while: not for the event loop."""
    near = [number for at in range(0, len(known.faces), _AT_ONCE) for number in _near(known, gallery, at, options)]
    passing = [
        number
        for number, match in zip(near, gallery.match([known.faces[number] for number in near]), strict=True)
        if judge(match, options) == "match"
    ]
    return list({known.owner(number).id for number in passing})


def _near(known: Gallery, gallery: Gallery, at: int, options: settings.Decision) -> Iterator[int]:
    """Which of the next faces are near anybody: all at once, since hardly any is."""
    looks, faces = known.faces[at : at + _AT_ONCE], gallery.faces
    squares = np.square(looks).sum(axis=1)[:, np.newaxis] + np.square(faces).sum(axis=1) - 2 * looks @ faces.T
    limit = (options.threshold + _ROUNDING) ** 2
    return (at + int(index) for index in np.flatnonzero(squares.min(axis=1) <= limit))
