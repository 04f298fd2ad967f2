"""Cameras from outside: snapshot, pause and resume by HTTP and MQTT, and enrolling whoever is in view."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiomqtt
import cv2
import numpy as np
import pytest
import requests

from tests.integration.test_daemon import write_clip
from tests.support.api import SOI, Api, multipart, running
from tests.support.broker import Broker, until, watching
from tests.support.daemon import Daemon, write_config
from tests.support.mqtt import gate
from tests.support.photos import astronaut
from tests.support.publishing import AskedCameras

FRONT = "/api/v1/cameras/front"
PAUSE = "edge-face/gate-1/cmd/pause"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running(tmp_path) as api:
        yield api


async def test_cameras_are_listed_shown_paused_and_resumed(api: Api) -> None:
    front = {"id": "front", "state": "ok", "detail": "", "paused": False}
    assert (await api.ask("GET", "/api/v1/cameras", "viewer"))[1] == {"items": [front], "next_cursor": None}
    status, picture, answer = await api.ask("GET", f"{FRONT}/snapshot.jpg", "viewer")
    assert (status, picture, answer.content_type) == (200, api.cameras.jpeg, "image/jpeg")
    assert answer.headers["Cache-Control"] == "no-store"
    assert (await api.ask("POST", f"{FRONT}/pause"))[1] == front | {"paused": True}
    assert api.cameras.paused
    assert (await api.ask("POST", f"{FRONT}/resume"))[1] == front
    for method, path in (("GET", "snapshot.jpg"), ("POST", "pause"), ("POST", "resume"), ("POST", "enroll")):
        assert (await api.ask(method, f"/api/v1/cameras/back/{path}", json={"name": "x"}))[0] == 404
    api.cameras.jpeg = None
    status, error, _ = await api.ask("GET", f"{FRONT}/snapshot.jpg", "viewer")
    assert (status, error["error"]) == (503, "camera_lost")


@pytest.mark.parametrize("how", ["json", "urlencoded", "multipart"])
async def test_the_face_in_view_is_enrolled(api: Api, how: str) -> None:
    fields = {"name": "Katya", "external_id": "7"}
    sent: dict[str, Any] = {
        "json": {"json": fields},
        "urlencoded": {"data": fields},
        "multipart": {"data": multipart(*fields.items())},
    }[how]
    status, person, answer = await api.ask("POST", f"{FRONT}/enroll", **sent)
    assert (status, person["name"], person["external_id"], person["faces"]) == (201, "Katya", "7", 1)
    assert answer.headers["Location"] == "/api/v1/people/katya"


@pytest.mark.parametrize(
    ("jpeg", "old_s", "sent", "status", "error"),
    [
        (b"nobody", 0.0, {"json": {"name": "x"}}, 422, "no_face"),
        (b"crowd", 0.0, {"json": {"name": "x"}}, 422, "several_faces"),
        (b"blurred", 0.0, {"json": {"name": "x"}}, 422, "low_quality"),
        (b"face 2", 1.1, {"json": {"name": "x"}}, 422, "stale"),
        (b"face 1", 0.0, {"json": {"name": "x"}}, 409, "duplicate_person"),
        (None, 0.0, {"json": {"name": "x"}}, 503, "camera_lost"),
        (b"face 2", 0.0, {"json": {}}, 400, "bad_field"),
        (b"face 2", 0.0, {"json": {"name": "x", "person": "y"}}, 400, "bad_field"),
        (b"face 2", 0.0, {"data": {"external_id": "y"}}, 400, "missing_field"),
        (b"face 2", 0.0, {"json": {"name": ""}}, 400, "bad_name"),
    ],
)
async def test_what_is_in_view_cannot_be_enrolled(
    api: Api, jpeg: bytes | None, old_s: float, sent: dict[str, Any], status: int, error: str
) -> None:
    await api.ask("POST", "/register", data=multipart(("name", "Katya"), ("image", b"face 1")))
    api.cameras.jpeg, api.cameras.old_s = jpeg and SOI + jpeg, old_s
    got, answer, _ = await api.ask("POST", f"{FRONT}/enroll", **sent)
    assert (got, answer["error"]) == (status, error)
    assert (await api.ask("GET", "/faces"))[1] == ["Katya"]


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_only_a_live_command_counts(
    broker: Broker, tmp_path: Path, version: str, caplog: pytest.LogCaptureFixture
) -> None:
    asked = AskedCameras()
    async with aiomqtt.Client("127.0.0.1", broker.port) as home:
        await home.publish(PAUSE, "ON", qos=1, retain=True)
        async with gate(tmp_path, broker.options(version=version), cameras=asked) as (sink, _):
            await until(lambda: "retained command" in caplog.text)
            if version == "5":  # 3.1.1 has no way to tell one that comes meanwhile from any other
                await home.publish(PAUSE, "ON", qos=1, retain=True)
            for topic, text in (
                (PAUSE, "perhaps"),
                (PAUSE, b"\xff\x00"),
                (PAUSE, ""),
                ("edge-face/gate-1/cmd/open", "ON"),
                ("edge-face/gate-1/cmd/unblock", "Katya"),
                ("edge-face/gate-2/cmd/pause", "ON"),
                ("edge-face/gate-1/front/event", '{"status": "PASS"}'),
                ("edge-face/gate-1/side/cmd/pause", "ON"),
                ("edge-face/gate-1/front/cmd/snapshot", ""),
                (PAUSE, "off"),
                ("edge-face/gate-1/front/cmd/pause", "ON"),
            ):
                await home.publish(topic, text, qos=1)
            await until(lambda: len(asked.pauses) == 2)
            assert asked.pauses == [(False, ("front",)), (True, ("front",))]
            assert sink.healthy
            link = sink._link
            assert link is not None
            link.abort()
            await until(lambda: sink.healthy and sink._link is not link)
            await asyncio.sleep(0.2)
            await home.publish(PAUSE, "OFF", qos=1)
            await until(lambda: len(asked.pauses) == 3)
    assert asked.pauses[2] == (False, ("front",))


def seen(daemon: Daemon, auth: dict[str, str]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = requests.get(daemon.url + "/api/v1/events", headers=auth, timeout=9).json()["items"]
    return items


async def test_a_pause_holds_over_a_crash_and_the_face_in_view_is_enrolled(broker: Broker, tmp_path: Path) -> None:
    """One real camera, from the first stranger to the first PASS."""
    clip = write_clip(tmp_path / "clip.avi", (astronaut(), 1.5))
    config = write_config(
        tmp_path,
        {
            "camera": {"source": clip, "loop": "true"},
            "decision": {"cooldown": 0, "presence_timeout": 0.5},
            "mqtt": {"host": "127.0.0.1", "port": broker.port},
        },
    )
    token = ""

    async def ask(method: str, path: str, **more: Any) -> requests.Response:
        auth = {"Authorization": f"Bearer {token}"}
        return await asyncio.to_thread(requests.request, method, daemon.url + path, headers=auth, timeout=30, **more)

    async with watching(broker) as watcher, aiomqtt.Client("127.0.0.1", broker.port) as home:
        with Daemon(config) as daemon:
            token = await asyncio.to_thread(lambda: daemon.token)
            await until(lambda: watcher.events(), 30)
            assert watcher.texts("/front/paused") == ["OFF"]
            await home.publish(PAUSE, "ON", qos=1)
            await until(lambda: watcher.texts("/front/paused") == ["OFF", "ON"])
            await until(lambda: '"present":false' in watcher.texts("/presence")[-1])
            before = len(watcher.events())
            picture = (await ask("GET", f"{FRONT}/snapshot.jpg")).content
            image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
            assert image is not None
            assert image.shape == (480, 640, 3)
            (camera,) = (await ask("GET", "/api/v1/status")).json()["cameras"]
            assert (camera["paused"], camera["state"]) == (True, "ok")
            await asyncio.sleep(2)  # longer than the clip: an unpaused camera would have had a visit
            daemon.end(signal.SIGKILL)
        with Daemon(config) as daemon:
            await asyncio.to_thread(daemon.wait_for, "ok")
            (camera,) = (await ask("GET", "/api/v1/cameras")).json()["items"]
            assert camera["paused"] is True
            await asyncio.sleep(2)
            assert len(watcher.events()) == before
            assert (await ask("POST", f"{FRONT}/resume")).json()["paused"] is False
            await until(lambda: watcher.texts("/front/paused")[-1] == "OFF")
            await until(lambda: len(watcher.events()) > before, 10)
            enrolled = await ask("POST", f"{FRONT}/enroll", json={"name": "Eileen"})
            assert enrolled.status_code == 201, enrolled.text
            await until(lambda: watcher.events()[-1]["name"] == "Eileen", 10)
            assert watcher.events()[-1]["status"] == "PASS"
            assert daemon.end()[0] == 0
    assert "Traceback" not in daemon.log
