"""GET /streaming and /hash: what is drawn, by a real child; viewers who are slow, silent or not allowed."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
import requests
from PIL import Image

from edge_face.events import Box, InView, Match, Verdict
from edge_face.web import mjpeg, stream
from edge_face.web.dropin import person_pseudonym
from tests.integration.test_api_stream import until
from tests.support.api import KATYA, KEY, Api, running, view

GREY = (90, 90, 90)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running(tmp_path) as api:
        yield api
        while _open:
            _open.pop().close()


_open: list[aiohttp.ClientResponse] = []
"""What a test left watching."""


def frame(color: tuple[int, int, int] = GREY, size: tuple[int, int] = (640, 480)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, color).save(out, "JPEG")
    return out.getvalue()


def noise(size: tuple[int, int] = (1280, 960)) -> bytes:
    """A frame that JPEG can hardly compress."""
    out = io.BytesIO()
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(out, "JPEG", quality=95)
    return out.getvalue()


def verdict(status: Any = "PASS", reason: Any = "match", track: int = 17, box: Box | None = None) -> Verdict:
    person = KATYA if status == "PASS" else None
    return Verdict(box or Box(120, 80, 240, 300), track, status, reason, Match(KATYA, 0.41, 0.2), person, 3)


class Viewer:
    """Reads parts of the stream as a browser does."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer

    async def picture(self) -> Image.Image:
        async with asyncio.timeout(40):
            head = await self.answer.content.readuntil(b"\r\n\r\n")
            found = re.search(rb"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: (\d+)\r\n\r\n$", head)
            assert found, head
            return Image.open(io.BytesIO(await self.answer.content.readexactly(int(found[1]))))


async def watching(api: Api, query: str = "", headers: dict[str, str] | None = None) -> Viewer:
    headers = {"X-API-Key": api.viewer} if headers is None else headers
    answer = await api.session.get(f"{api.server.url}/streaming{query}", headers=headers)
    _open.append(answer)
    assert answer.status == 200, await answer.text()
    assert answer.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=frame"
    assert answer.headers["Cache-Control"] == "no-store"
    return Viewer(answer)


def is_near(pixel: Any, color: tuple[int, int, int]) -> bool:
    return all(abs(a - b) < 40 for a, b in zip(pixel, color, strict=True))


async def test_boxes_and_names_are_drawn_and_nobody_is_named_before_the_decision(api: Api) -> None:
    viewer = await watching(api)
    shown = []
    for seen in (verdict(), verdict("REJECT", "deciding"), None):
        sent = view(jpeg=frame())
        api.views.send(replace(sent, verdicts=(seen,) if seen else ()))
        shown.append(await viewer.picture())
    passed, deciding, empty = shown
    assert passed.size == (640, 480)
    for x, y in ((122, 200), (238, 200), (180, 298)):
        assert is_near(passed.getpixel((x, y)), (0, 150, 60))
    assert is_near(passed.getpixel((180, 200)), GREY)
    assert is_near(deciding.getpixel((122, 200)), (200, 30, 30))
    above = [np.asarray(picture.crop((120, 50, 400, 79)).convert("L"), float) for picture in shown]
    assert above[0].max() > 200, "a name in white"
    assert above[2].max() < 120
    assert np.abs(above[0] - above[1]).mean() > 5, "the name is not shown while it is open who it is"
    assert is_near(empty.getpixel((122, 200)), GREY)


async def test_a_frame_is_drawn_once_for_all_and_not_at_all_without_viewers(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "RECHECK_S", 0.05)
    painter = api.server._app[mjpeg.MJPEG]._painter
    drawn: list[bytes] = []
    draw = painter.draw

    async def counted(jpeg: bytes, labels: Any) -> bytes | None:
        drawn.append(jpeg)
        return await draw(jpeg, labels)

    painter.draw = counted  # type: ignore[method-assign]
    assert api.wanted == []
    viewers = [await watching(api) for _ in range(4)]
    assert api.wanted == [True]
    api.views.send(view(jpeg=frame()))
    pictures = [(await viewer.picture()).tobytes() for viewer in viewers]
    assert len(set(pictures)) == 1
    assert len(drawn) == 1
    pid = painter.pid
    assert pid is not None
    for viewer in viewers:
        viewer.answer.close()
    await until(lambda: api.wanted == [True, False] and not Path(f"/proc/{pid}").exists(), 10)
    api.views.send(view(jpeg=frame()))
    await asyncio.sleep(0.05)
    assert len(drawn) == 1


async def test_a_killed_painter_is_started_again_and_damaged_frames_are_left_out(api: Api) -> None:
    viewer = await watching(api)
    api.views.send(view(jpeg=frame()))
    await viewer.picture()
    pid = api.server._app[mjpeg.MJPEG]._painter.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    api.views.send(view(jpeg=frame((10, 10, 10))))
    await until(lambda: api.server._app[mjpeg.MJPEG]._painter.pid != pid)
    for damaged in (b"", b"\xff\xd8 no picture", frame()[:300]):
        api.views.send(view(jpeg=damaged))
        await asyncio.sleep(0.02)
    api.views.send(view(jpeg=frame((200, 200, 200))))
    while not is_near((await viewer.picture()).getpixel((400, 400)), (200, 200, 200)):
        pass


async def test_one_camera_is_shown(api: Api) -> None:
    viewer = await watching(api, "?camera=front")
    other = view(jpeg=frame((255, 255, 255)))
    api.views.send(replace(other, result=replace(other.result, camera="back")))
    api.views.send(view(jpeg=frame()))
    assert is_near((await viewer.picture()).getpixel((400, 400)), GREY)
    status, body, _ = await api.ask("GET", "/streaming?camera=back")
    assert (status, body["error"]) == (404, "not_found")


async def test_who_may_watch(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "RECHECK_S", 0.05)
    _, ticket, _ = await api.ask("POST", "/api/v1/tickets", "admin")
    by_ticket = await watching(api, f"?token={ticket['ticket']}", {})
    by_token = await watching(api, f"?token={api.viewer}", {})
    assert (await api.ask("GET", f"/streaming?token={api.admin}", None))[0] == 401
    assert (await api.ask("GET", "/streaming", headers={"Origin": "http://evil.example"}))[0] == 403
    monkeypatch.setattr(mjpeg, "MAX_VIEWERS", 2)
    status, body, _ = await api.ask("GET", "/streaming")
    assert (status, body["error"]) == (503, "too_many_viewers")
    api.tokens.revoke(api.viewer_id)
    with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientOSError)):
        await asyncio.wait_for(by_token.answer.content.read(), 5)
    api.views.send(view(jpeg=frame()))
    await by_ticket.picture()


async def test_a_slow_viewer_loses_frames_and_slows_nobody(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "STALLED_S", 1.0)
    slow = socket.create_connection(("127.0.0.1", api.server.port))
    slow.sendall(f"GET /streaming HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {api.viewer}\r\n\r\n".encode())
    quick = await watching(api)
    await until(lambda: len(api.server._app[mjpeg.MJPEG]._viewers) == 2)
    large = noise()
    deadline = time.monotonic() + 60
    seen = 0
    while len(api.server._app[mjpeg.MJPEG]._viewers) == 2:
        assert time.monotonic() < deadline, "the one that reads nothing is cut off"
        api.views.send(view(jpeg=large))
        await quick.picture()
        seen += 1
    api.views.send(view(jpeg=large))
    await quick.picture()
    assert seen > 3
    slow.close()


async def test_the_end_waits_for_no_viewer(api: Api) -> None:
    viewer = await watching(api)
    api.views.send(view(jpeg=frame()))
    await viewer.picture()
    started = time.monotonic()
    await api.server.stop()
    assert time.monotonic() - started < 2
    with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientOSError)):
        await viewer.answer.content.read()


async def test_curl_sees_the_parts(api: Api, tmp_path: Path) -> None:
    out = tmp_path / "stream"
    command = ["curl", "-sSN", "-o", out, f"{api.server.url}/streaming?token={api.viewer}"]
    process = subprocess.Popen(command)
    try:
        await until(lambda: len(api.server._app[mjpeg.MJPEG]._viewers) == 1, 10)
        while not out.exists() or not out.read_bytes().endswith(b"--frame\r\n") or out.stat().st_size < 999:
            api.views.send(view(jpeg=frame()))  # as a camera does: who has only just come may miss the first one
            await asyncio.sleep(0.1)
    finally:
        process.kill()
        process.wait()
    assert out.read_bytes().startswith(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: ")


async def seen_hash(api: Api) -> str | None:
    answer = await asyncio.to_thread(
        requests.get, f"{api.server.url}/hash", headers={"X-API-Key": api.viewer}, timeout=5
    )
    assert list(answer.json()) == ["hash"]
    value: str | None = answer.json()["hash"]
    return value


async def test_hash(api: Api) -> None:
    assert await seen_hash(api) is None
    api.in_view[:] = [InView("front", verdict())]
    assert await seen_hash(api) == person_pseudonym(KEY, KATYA)
    api.in_view[:] = [InView("front", verdict("REJECT", "deciding"))]
    assert await seen_hash(api) is None

    api.in_view[:] = [InView("front", verdict("REJECT", "unknown"))]
    stranger = await seen_hash(api)
    assert stranger == await seen_hash(api)
    assert stranger is not None
    assert re.fullmatch("[0-9a-f]{64}", stranger)
    assert stranger != person_pseudonym(KEY, KATYA)
    api.in_view[:] = [InView("front", verdict("REJECT", "unknown", track=18))]
    assert await seen_hash(api) not in (None, stranger)
    api.in_view[:] = [InView("front", verdict("REJECT", "unknown"), "a visitor who is kept")]
    kept = await seen_hash(api)
    assert kept not in (None, stranger)
    api.in_view[:] = [InView("back", verdict("REJECT", "unknown", track=99), "a visitor who is kept")]
    assert await seen_hash(api) == kept, "the same at the next visit, wherever"
    api.in_view.append(InView("back", verdict(box=Box(0, 0, 400, 400))))
    assert await seen_hash(api) == person_pseudonym(KEY, KATYA), "the largest"
    api.in_view.clear()
    assert await seen_hash(api) is None


def test_a_label_names_nobody_but_who_passed() -> None:
    assert mjpeg._label(verdict()).text == "Katya"
    for reason in ("deciding", "not_allowed", "unknown"):
        known = replace(verdict("REJECT", reason), person=KATYA)
        assert mjpeg._label(known).text == reason
