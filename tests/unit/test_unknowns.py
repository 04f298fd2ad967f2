"""Which visits of strangers are noted, as whom, and for how long; on real SQLite files, with time moved by hand."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_face import retention, settings, unknowns
from edge_face.bus import Bus
from edge_face.database import REOPEN_S, StoreThread
from edge_face.errors import NotFoundError
from edge_face.events import Box, Encoding, FrameResult, FrameView, InView, Match, Quality, TrackedFace, Verdict
from edge_face.gallery import Gallery
from edge_face.gate import Gate
from edge_face.store import Store
from edge_face.unknowns import NOTE_AFTER_S, Unknowns
from edge_face.visitors import SeenVisit, Visitor
from tests.support.api import encoding
from tests.support.broker import until
from tests.support.clock import HandClock
from tests.support.disk import no_room

GOOD = Quality(size_px=120, sharpness=80.0, brightness=120.0, contrast=40.0, yaw=0.0, pitch=0.0, roll_deg=0.0)
BETTER = replace(GOOD, size_px=200)
WORSE = replace(GOOD, size_px=70)
BLURRED = replace(GOOD, sharpness=5.0)
KEEP = settings.Config(storage=settings.Storage(keep_unknowns=True))


class Scene:
    """A gate, and the unknown visitors behind it."""

    def __init__(self, store: Store, clock: HandClock, config: settings.Config = KEEP, *, synced: bool = True) -> None:
        self.store = store
        self.clock = clock
        self.thread = StoreThread()
        self.unknowns = Unknowns(store, self.thread, config, clock, lambda: synced)
        views: Bus[FrameView] = Bus()
        self.gates = {
            camera: Gate(
                *("gate-1", camera, config.decision, clock, views, *[lambda *_: None] * 3),
                clock_synced=lambda: synced,
                on_judged=self.unknowns.judged,
                on_decision=self.unknowns.decided,
            )
            for camera in ("front", "back")
        }
        self._number = 0

    def frame(self, *faces: TrackedFace, camera: str = "front") -> None:
        self._number += 1
        self.clock.now += 0.1
        self.clock.date += 0.1
        result = FrameResult(camera, self._number, 0, self.clock.now, self.clock.date, 640, 480, faces, {})
        self.gates[camera].on_frame(result)

    def visit(self, track: int, face: Encoding, quality: Quality = GOOD, camera: str = "front") -> None:
        for number in range(4):
            looks = TrackedFace(Box(0, 0, 100, 100), 1.0, track, face, quality, b"picture of %d" % track)
            self.frame(looks if number < 3 else replace(looks, encoding=None), camera=camera)

    async def later(self, seconds: float = NOTE_AFTER_S) -> None:
        self.clock.now += seconds
        self.clock.date += seconds
        for gate in self.gates.values():
            gate.tick()
        await self.unknowns._work()

    async def listed(self) -> list[Visitor]:
        return (await self.unknowns.page(None, None)).items

    def enrol(self, name: str, face: Encoding) -> None:
        self.store.add_faces(name, [face])
        rows = self.store.gallery()
        gallery = Gallery.build(rows.persons, rows.owners, rows.matrix)
        for gate in self.gates.values():
            gate.use_gallery(gallery)
        self.unknowns.use_gallery(gallery)

    def named(self, track: int, camera: str = "front") -> str | None:
        verdict = Verdict(Box(0, 0, 9, 9), track, "REJECT", "unknown", Match(), None, 3)
        return self.unknowns.named(InView(camera, verdict)).visitor


@asynccontextmanager
async def playing(store: Store, clock: HandClock, config: settings.Config = KEEP) -> AsyncIterator[Scene]:
    scene = Scene(store, clock, config)
    yield scene
    await scene.thread.close()


@pytest.fixture
async def scene(store: Store, clock: HandClock) -> AsyncIterator[Scene]:
    async with playing(store, clock) as scene:
        yield scene


async def test_one_visitor_for_all_visits_and_cameras(scene: Scene) -> None:
    scene.visit(1, encoding(1))
    await scene.later(NOTE_AFTER_S - 0.5)
    assert await scene.listed() == [], "the next looks may show that it is somebody after all"
    await scene.later(0.5)
    (visitor,) = await scene.listed()
    assert (visitor.visits, visitor.cameras, visitor.faces, visitor.ignored) == (1, ("front",), 3, False)
    assert scene.named(1) == visitor.id
    await scene.later(60)
    assert scene.named(1) is None, "gone"

    scene.visit(2, encoding(1, view=1), camera="back")
    assert scene.named(2, "back") == visitor.id, "known again before the visit is noted"
    scene.visit(3, encoding(2))
    assert scene.named(3) not in (visitor.id, None)
    await scene.later()
    other, again = await scene.listed()
    assert (again.id, again.visits, again.cameras) == (visitor.id, 2, ("back", "front"))
    assert again.first_seen == visitor.first_seen < again.last_seen
    assert (other.id, other.visits) == (scene.named(3), 1)


async def test_a_visit_is_written_once(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    note = scene.store.note_visitor

    def counted(id: str, visit: SeenVisit) -> int:
        written.append(id)
        return note(id, visit)

    monkeypatch.setattr(scene.store, "note_visitor", counted)
    for _ in range(20):
        scene.visit(1, encoding(1))
        await scene.later(1)
    assert len(written) == 1


async def test_who_comes_again_while_a_slow_disk_notes_the_visit_is_the_same(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.visit(1, encoding(1))
    visitor = scene.named(1)
    begun, go_on, note = threading.Event(), threading.Event(), scene.store.note_visitor

    def slowly(id: str, visit: SeenVisit) -> int:
        begun.set()
        go_on.wait(10)
        return note(id, visit)

    monkeypatch.setattr(scene.store, "note_visitor", slowly)
    noting = asyncio.create_task(scene.later())
    await until(begun.is_set)
    scene.visit(2, encoding(1, view=1))
    scene.visit(3, encoding(2))
    assert (scene.named(2) == visitor, scene.named(3) == visitor) == (True, False)
    go_on.set()
    await noting
    await scene.later()
    assert {each.id: each.visits for each in await scene.listed()} == {visitor: 2, scene.named(3): 1}


async def test_the_same_stranger_at_two_cameras_at_once_is_one(scene: Scene) -> None:
    scene.visit(1, encoding(1))
    scene.visit(1, encoding(1, view=1), camera="back")
    scene.visit(2, encoding(2), camera="back")
    assert scene.named(1, "back") == scene.named(1) != scene.named(2, "back")
    scene.visit(2, encoding(2), BLURRED)
    await scene.later()
    assert len(await scene.listed()) == 2
    assert await scene.unknowns.erase(str(scene.named(2, "back")))
    (visitor,) = await scene.listed()
    assert (visitor.visits, visitor.cameras) == (2, ("back", "front"))
    assert scene.named(1) == scene.named(1, "back") == visitor.id


async def test_a_face_that_is_seen_badly_is_not_kept(scene: Scene) -> None:
    scene.visit(1, encoding(1), BLURRED)
    fleeting = scene.named(1)
    assert fleeting
    await scene.later()
    assert await scene.listed() == []
    assert scene.unknowns.lost == 0
    await scene.later(60)
    scene.visit(2, encoding(1), BLURRED)
    assert scene.named(2) not in (None, fleeting), "nothing of it was kept"


@pytest.mark.parametrize("spoiled", ["nan", "large", "no picture"])
async def test_what_a_child_must_not_send_is_not_kept(scene: Scene, spoiled: str) -> None:
    face = np.full(128, np.nan, np.float32) if spoiled == "nan" else encoding(1)
    jpeg = {"large": b"x" * 70_000, "no picture": None}.get(spoiled, b"x")
    for _ in range(4):
        scene.frame(TrackedFace(Box(0, 0, 100, 100), 1.0, 1, face, GOOD, jpeg))
    await scene.later()
    assert await scene.listed() == []


async def test_the_best_visit_gives_templates_and_picture(scene: Scene) -> None:
    scene.visit(1, encoding(1), WORSE)
    await scene.later()
    (visitor,) = await scene.listed()
    for track, quality, shown in ((2, BETTER, 2), (3, GOOD, 2)):
        await scene.later(60)
        scene.visit(track, encoding(1, view=1), quality)
        await scene.later()
        assert await scene.unknowns.picture(visitor.id) == b"picture of %d" % shown
    assert all((face == encoding(1, view=1)).all() for face in await scene.unknowns.faces(visitor.id))


async def test_only_views_that_are_surely_the_same_face_are_kept(scene: Scene) -> None:
    """The tracker lets a track go on up to 0.6, which is not sure enough for somebody who may be enrolled from it."""
    other = encoding(1) + np.float32(0.5 / np.sqrt(128))
    for face, quality in ((encoding(1), BETTER), (other, GOOD), (encoding(1), GOOD)):
        scene.frame(TrackedFace(Box(0, 0, 100, 100), 1.0, 1, face, quality, b"x"))
    await scene.later()
    (visitor,) = await scene.listed()
    assert visitor.faces == 2


async def test_somebody_who_passes_after_all_was_no_stranger(scene: Scene) -> None:
    katya = encoding(1)
    scene.enrol("Katya", katya)
    away = katya + np.float32(0.5 / np.sqrt(128))
    for wait_s in (0.0, NOTE_AFTER_S + 1):
        scene.visit(1, away)
        assert scene.named(1)
        await scene.later(wait_s)
        assert len(await scene.listed()) == (1 if wait_s else 0)
        scene.visit(1, katya)
        await scene.later()
        assert await scene.listed() == []
        await scene.later(60)


async def test_somebody_whose_pass_was_before_is_no_stranger_either(scene: Scene) -> None:
    """In one visit a person has one PASS, and may have several tracks."""
    katya = encoding(1)
    scene.enrol("Katya", katya)
    scene.visit(1, katya)
    scene.visit(2, katya + np.float32(0.5 / np.sqrt(128)))
    assert scene.gates["front"].decisions == {"match": 1, "unknown": 1}
    scene.visit(2, katya)
    await scene.later()
    assert await scene.listed() == []
    assert scene.gates["front"].decisions["match"] == 1


async def test_who_is_enrolled_by_any_way_is_listed_no_longer(scene: Scene) -> None:
    scene.visit(1, encoding(1))
    scene.visit(2, encoding(2))
    await scene.later()
    assert len(await scene.listed()) == 2
    scene.enrol("Katya", encoding(1, view=1))
    await scene.later(unknowns.SWEEP_EVERY_S)
    (left,) = await scene.listed()
    assert left.id == scene.named(2)


async def test_who_is_ignored_is_not_listed_again_and_who_is_erased_is_somebody_new(scene: Scene) -> None:
    scene.visit(1, encoding(1))
    scene.visit(2, encoding(2))
    await scene.later()
    one, two = scene.named(1), scene.named(2)
    assert one
    assert two
    await scene.unknowns.ignore(one)
    await scene.unknowns.erase(two)
    assert scene.named(2) not in (None, two), "the pseudonym ends with what it stood for"
    for _ in range(3):
        await scene.later(60)
        scene.visit(11, encoding(1, view=1))
        scene.visit(12, encoding(2, view=1))
        await scene.later()
    (visitor,) = await scene.listed()
    assert visitor.id not in (one, two)
    assert visitor.visits == 3
    (ignored,) = (await scene.unknowns.page(None, None, ignored=True)).items
    assert (ignored.id, ignored.visits) == (one, 4)
    with pytest.raises(NotFoundError):
        await scene.unknowns.picture(one)


async def test_a_restart_changes_nothing(scene: Scene, clock: HandClock) -> None:
    scene.visit(1, encoding(1))
    await scene.unknowns.flush()
    (visitor,) = await scene.listed()
    async with playing(scene.store, clock) as after:
        await after.later(60)
        after.visit(1, encoding(1, view=1))
        assert after.named(1) == visitor.id
        await after.later()
        assert [each.visits for each in await after.listed()] == [2]


async def test_a_full_disk_loses_visits_and_nothing_else(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await scene.later()
    with no_room():
        for track in (1, 2, 3):
            scene.visit(track, encoding(track))
            await scene.later()
    assert scene.unknowns.status() == {"kept": 0, "lost": 3, "gave_way": 0}
    assert [record.name for record in caplog.records] == ["edge_face.unknowns"]
    assert sum(gate.decisions["unknown"] for gate in scene.gates.values()) == 3
    await asyncio.sleep(REOPEN_S)
    scene.visit(4, encoding(4))
    await scene.later()
    assert len(await scene.listed()) == 1


async def test_off_means_that_nothing_is_kept_and_what_was_is_erased(
    scene: Scene, clock: HandClock, tmp_path: Path
) -> None:
    scene.visit(1, encoding(1))
    await scene.later()
    async with playing(scene.store, clock, settings.Config()) as off:
        task = asyncio.create_task(off.unknowns.run())
        await until(lambda: scene.store.visitors().items == [])
        off.visit(1, encoding(1))
        assert off.named(1) is None
        clock.now += 10
        await off.unknowns.flush()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await off.listed() == []
        with pytest.raises(NotFoundError):
            await off.unknowns.visitor("x")
    assert encoding(1).tobytes() not in b"".join(file.read_bytes() for file in tmp_path.glob("*.db*"))


def seen(clock: HandClock, seed: int, days_ago: float = 0, *, synced: bool = True) -> SeenVisit:
    return SeenVisit("front", clock.date - days_ago * 86_400, clock.now, synced, [encoding(seed)], 0.5, b"x")


def test_the_oldest_give_way(store: Store, clock: HandClock) -> None:
    for number in range(3):
        assert store.note_visitor(f"v{number}", seen(clock, number), most=3) == 0
    store.note_visitor("v0", seen(clock, 0), most=3)
    assert store.note_visitor("v3", seen(clock, 3), most=3) == 1
    assert [visitor.id for visitor in store.visitors().items] == ["v3", "v0", "v2"]


def test_a_damaged_template_is_left_out(store: Store, clock: HandClock) -> None:
    store.note_visitor("good", seen(clock, 1))
    store.note_visitor("bad", seen(clock, 2))
    with store.writing() as db:
        db.execute("UPDATE unknowns SET encodings = ? WHERE id = 'bad'", (b"\xff" * 512,))
    assert [id for id, _ in store.visitor_templates()] == ["good"]


def test_the_last_visit_counts_for_retention(store: Store, clock: HandClock) -> None:
    store.note_visitor("undated", seen(clock, 1, synced=False))
    store.note_visitor("back again", seen(clock, 2, 50))
    store.note_visitor("old", seen(clock, 3, 40))
    store.note_visitor("undated later", seen(clock, 4, synced=False))
    store.note_visitor("back again", seen(clock, 2, 1))
    store.ignore_visitor("old")
    before = clock.date - 30 * 86_400
    assert store.purge_visitors(before, 1) == 1
    assert store.purge_visitors(before, 10) == 1
    assert store.purge_visitors(before, 10) == 0
    assert [visitor.id for visitor in store.visitors().items] == ["back again", "undated later"]


def test_visits_are_dated_when_the_clock_is_right(store: Store, clock: HandClock) -> None:
    store.note_visitor("v", seen(clock, 1, 9000, synced=False))
    assert not store.visitor("v").clock_synced
    clock.now += 60
    store.date_events()
    visitor = store.visitor("v")
    assert visitor.clock_synced
    assert visitor.first_seen == visitor.last_seen == pytest.approx(clock.date - 60)


async def test_old_visitors_are_erased_and_known_no_more(
    scene: Scene, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(retention, "BETWEEN_BATCHES_S", 0)
    scene.visit(1, encoding(1))
    await scene.later()
    first = scene.named(1)
    await scene.later(31 * 86_400)
    task = asyncio.create_task(
        retention.keep(scene.store, scene.thread, clock, lambda: 0, lambda: True, (lambda: 30, scene.unknowns.purge))
    )
    for _ in range(2):
        await asyncio.sleep(0.1)
        assert len(await scene.listed()) == 1, "the clock has not settled"
        clock.now += retention.SETTLE_S / 1.5
        clock.date += retention.SETTLE_S / 1.5
    await until(lambda: scene.store.visitors().items == [])
    await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    scene.visit(2, encoding(1))
    assert scene.named(2) not in (None, first)
