"""`[remote]`: a real server of /match, and what it is sent and when."""

from __future__ import annotations

import asyncio
import base64
import csv
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from aiohttp import web

from edge_face.bus import Bus
from edge_face.events import FrameView
from edge_face.remote import RemoteMatcher
from edge_face.settings import Remote
from edge_face.sinks.csv import AttendanceFile, local_time
from tests.integration.test_api_stream import until
from tests.support.api import view
from tests.support.clock import HandClock


@dataclass
class Server:
    """Keeps the pictures that it gets, and says what it is told to."""

    answer: Callable[[], web.StreamResponse] = lambda: web.json_response({"match": "Moctar"})
    delay_s: float = 0.0
    pictures: list[bytes] = field(default_factory=list)
    auth: list[str | None] = field(default_factory=list)
    url: str = ""

    async def match(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        picture = form["image"]
        assert isinstance(picture, web.FileField)
        with picture.file:
            self.pictures.append(picture.file.read())
        self.auth.append(request.headers.get("Authorization"))
        await asyncio.sleep(self.delay_s)
        return self.answer()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_post("/match", server.match)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.url = f"http://{host}:{port}/match"
    yield server
    await runner.cleanup()


@dataclass
class Camera:
    """Frames as they come from a camera whose pictures are made only when they are wanted."""

    views: Bus[FrameView]
    clock: HandClock
    wanted: list[bool]

    async def frame(self, *, face: bool = True, camera: str = "front") -> None:
        sent = view(jpeg=b"picture" if self.wanted[-1:] == [True] else None)
        result = replace(sent.result, camera=camera, timestamp=self.clock.date)
        self.views.send(replace(sent, result=result, verdicts=sent.verdicts if face else ()))
        await asyncio.sleep(0.02)


@asynccontextmanager
async def asking(url: str, rows: Path | None, interval: float = 5.0) -> AsyncIterator[Camera]:
    camera = Camera(Bus(), HandClock(), [False])

    def want(wanted: bool) -> None:
        if wanted != camera.wanted[-1]:
            camera.wanted.append(wanted)

    matcher = RemoteMatcher(
        Remote(url, interval), rows and AttendanceFile(rows), camera.views, want, camera.clock, attempt_s=0.5
    )
    task = asyncio.create_task(matcher.run())
    await until(lambda: camera.views.watched)
    try:
        yield camera
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def names(path: Path) -> list[str]:
    with path.open(newline="") as file:
        return [row[0] for row in csv.reader(file)]


async def test_a_frame_only_with_a_face_and_at_most_every_interval(server: Server, tmp_path: Path) -> None:
    rows = tmp_path / "matches.csv"
    async with asking(server.url, rows) as camera:
        for _ in range(3):
            await camera.frame(face=False)
        assert camera.wanted == [False], "no picture is made while nobody is there"
        came_at = camera.clock.date
        await camera.frame()
        await camera.frame()
        await until(lambda: rows.exists())
        assert server.pictures == [b"picture"]
        assert camera.wanted == [False, True, False], "one picture, and no more until the next is due"
        for _ in range(9):
            camera.clock.now += 0.5
            await camera.frame()
        assert len(server.pictures) == 1
        camera.clock.now += 0.5
        server.answer = lambda: web.json_response({"match": "Unknown"})
        for _ in range(3):
            await camera.frame()
        await until(lambda: len(server.pictures) == 2 and names(rows)[1:] == ["Moctar", "Unknown"])
        await camera.frame(camera="back")
        await camera.frame(camera="back")
        await until(lambda: len(server.pictures) == 3)
    assert rows.read_text().splitlines()[:2] == ["Name,Timestamp", f"Moctar,{local_time(came_at)}"]


async def test_who_leaves_at_once_is_not_waited_for_with_pictures(server: Server, tmp_path: Path) -> None:
    async with asking(server.url, tmp_path / "m.csv") as camera:
        await camera.frame()
        await camera.frame(face=False)
        assert camera.wanted == [False, True, False]
        assert server.pictures == []


@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.json_response({"match": "Eve"}, status=500),
        lambda: web.Response(status=302, headers={"Location": "/elsewhere"}),
        lambda: web.json_response({"name": "Eve"}),
        lambda: web.json_response({"match": ["Eve"]}),
        lambda: web.json_response({"match": "Eve\n"*60}),
        lambda: web.json_response({"match": "E" * 200_000}),
        lambda: web.Response(text="[" * 60_000),
        lambda: web.Response(body=b"\xff"),
    ],
)  # fmt: skip
async def test_a_bad_answer_is_told_once_and_a_good_one_follows(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture, answer: Callable[[], web.StreamResponse]
) -> None:
    rows = tmp_path / "m.csv"
    server.answer = answer
    async with asking(server.url.replace("//", "//any:hush@"), rows, interval=0.1) as camera:
        while len(server.pictures) < 3:
            camera.clock.now += 1
            await camera.frame()
        server.answer = lambda: web.json_response({"match": "Moctar"})
        while not rows.exists():
            camera.clock.now += 1
            await camera.frame()
    assert names(rows)[:2] == ["Name", "Moctar"]
    (warning,) = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert "gave no answer" in warning
    assert "hush" not in caplog.text
    assert server.auth[0] == "Basic " + base64.b64encode(b"any:hush").decode()


async def test_a_server_that_hangs_or_is_away_holds_up_nothing(server: Server, tmp_path: Path) -> None:
    rows = tmp_path / "m.csv"
    server.delay_s = 60
    async with asking(server.url, rows, interval=0.1) as camera:
        async with asyncio.timeout(10):
            while len(server.pictures) < 2:  # given up after half a second
                camera.clock.now += 1
                await camera.frame()
    async with asking("http://127.0.0.1:9/match", rows, interval=0.1) as camera:
        for _ in range(5):
            camera.clock.now += 1
            await camera.frame()
    assert not rows.exists()


async def test_rows_follow_when_the_disk_is_back(server: Server, tmp_path: Path) -> None:
    rows = tmp_path / "away" / "m.csv"
    async with asking(server.url, rows, interval=0.1) as camera:
        while len(server.pictures) < 3:
            camera.clock.now += 1
            await camera.frame()
        rows.parent.mkdir()
        async with asyncio.timeout(5):
            while not rows.exists() or len(names(rows)) < 4:
                camera.clock.now += 0.05
                await camera.frame(face=False)
    assert names(rows)[:4] == ["Name", "Moctar", "Moctar", "Moctar"]


async def test_two_writers_make_one_file(tmp_path: Path) -> None:
    for number in range(20):
        path = tmp_path / f"{number}.csv"
        await asyncio.gather(*(asyncio.to_thread(AttendanceFile(path).append, name, 1.0) for name in "abcdef"))
        assert sorted(names(path)) == sorted(["Name", *"abcdef"])
