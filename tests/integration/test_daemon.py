"""The whole path for real: a daemon on a clip, a broker, a webhook receiver, a CSV, the API and the command line."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import csv
import io
import json
import os
import signal
import sqlite3
import time
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families
from websockets.sync.client import connect

from tests.support.broker import Broker, until, watching
from tests.support.daemon import Daemon, edge_face, events, write_config
from tests.support.photos import Image, astronaut, blank, hopper, jpeg
from tests.support.receiver import Receiver

KEYS = [
    "type",
    "id",
    "seq",
    "node",
    "camera",
    "status",
    "reason",
    "name",
    "person_id",
    "external_id",
    "distance",
    "threshold",
    "margin",
    "score",
    "rule",
    "box",
    "track",
    "frames",
    "liveness",
    "timestamp",
    "time",
    "expires_at",
    "latency_ms",
]


def write_clip(path: Path, *parts: tuple[Image, float], fps: int = 10) -> Path:
    """A clip that shows each picture for so many seconds, in a 640x480 scene that never stands quite still."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (640, 480))
    number = 0
    for picture, seconds in parts:
        for _ in range(round(seconds * fps)):
            scene = blank(480, 640)
            part = picture[:470, :600]
            shift = number % 8
            scene[shift : shift + part.shape[0], 20 + shift : 20 + shift + part.shape[1]] = part
            writer.write(np.ascontiguousarray(scene[:, :, ::-1]))
            number += 1
    writer.release()
    return path


async def test_a_face_in_front_of_the_camera_becomes_one_event_everywhere(
    tmp_path: Path, broker: Broker, receiver: Receiver
) -> None:
    clip = write_clip(tmp_path / "clip.avi", (blank(), 2), (astronaut(), 4), (blank(), 3), (hopper(), 4), (blank(), 1))
    config = write_config(
        tmp_path,
        {
            "camera": {"source": clip},
            "decision": {"presence_timeout": 1.5},
            "mqtt": {"host": "127.0.0.1", "port": broker.port},
            "webhook": {"url": receiver.url, "events": "PASS, REJECT", "snapshot": "yes"},
            "attendance": {"csv": tmp_path / "attendance.csv", "unknown": "true"},
        },
    )
    (tmp_path / "eileen.jpg").write_bytes(jpeg(astronaut()))
    assert edge_face("enroll", "Eileen", tmp_path / "eileen.jpg", "--external-id", "77", config=config).returncode == 0

    async with watching(broker) as watcher:
        with Daemon(config) as daemon:
            assert await asyncio.to_thread(daemon.wait, 60) == 0, daemon.log
        await until(lambda: watcher.texts("gate-1/status")[-1:] == ["offline"])

    told = [(event["status"], event["reason"], event["name"]) for event in watcher.events()]
    assert told == [("PASS", "match", "Eileen"), ("REJECT", "unknown", None)]
    passed = watcher.events()[0]
    assert list(passed)[: len(KEYS)] == KEYS
    assert set(passed) - set(KEYS) <= {"clock"}
    assert passed["external_id"] == "77"
    assert passed["person_id"] == "eileen"
    assert passed["expires_at"] - passed["timestamp"] == pytest.approx(5)
    assert 0 < passed["distance"] < 0.45
    assert passed["margin"] is None
    assert 0 < passed["latency_ms"] < 1000
    assert [event["seq"] for event in watcher.events()] == [1, 2]

    topics = {str(message.topic): message for message in watcher.messages}
    assert not any(message.retain for message in watcher.messages if str(message.topic).endswith("/event"))
    assert set(topics) == {
        f"edge-face/gate-1/{leaf}"
        for leaf in ("status", "stats", *(f"front/{leaf}" for leaf in ("event", "presence", "camera", "paused")))
    } | {"homeassistant/device/edge-face-gate-1/config"}
    presences = [json.loads(text) for text in watcher.texts("/presence")]
    changes = [(presence["present"], presence["persons"]) for presence in presences]
    assert [change for at, change in enumerate(changes) if not at or change != changes[at - 1]] == [
        (False, []),
        (True, []),
        (True, ["Eileen"]),
        (False, []),
        (True, []),
        (False, []),
    ]
    assert watcher.texts("/camera")[0] == "ok"

    assert [body["id"] for body in receiver.bodies] == [event["id"] for event in watcher.events()]
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(receiver.bodies[0]["snapshot"]), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert max(picture.shape) == 480
    rows = list(csv.reader(io.StringIO((tmp_path / "attendance.csv").read_text())))
    assert rows[0] == ["Name", "Timestamp"]
    assert [row[0] for row in rows[1:]] == ["Eileen", "Unknown"]
    assert [event["id"] for event in events(config)] == [body["id"] for body in receiver.bodies]


def test_one_daemon_from_start_to_stop(tmp_path: Path, eileen: bytes, grace: bytes) -> None:
    """A camera (a clip in a loop), registration over the API and the command line, the stream, the end."""
    clip = write_clip(tmp_path / "clip.avi", (astronaut(), 3))
    config = write_config(
        tmp_path,
        {"camera": {"source": clip, "loop": "true"}, "decision": {"cooldown": 0}, "stream": {"jpeg_quality": 50}},
    )
    with Daemon(config) as daemon:
        daemon.wait_for("ok")
        time.sleep(1.5)
        assert {event["reason"] for event in events(config)} == {"unknown"}

        form = {"name": "Eileen"}
        assert requests.post(daemon.url + "/register", data=form, files={"image": eileen}, timeout=9).status_code == 401
        registered = daemon.post("/register", data=form, files={"image": ("e.jpg", eileen)})
        assert (registered.status_code, registered.json()["success"]) == (200, True)
        assert daemon.get("/faces").json() == ["Eileen"]

        with connect(
            daemon.url.replace("http", "ws") + "/ws/face-stream", additional_headers=daemon.auth, max_size=None
        ) as stream:
            deadline = time.monotonic() + 15
            frame: dict[str, Any] = {}
            while frame.get("name") != "Eileen":
                assert time.monotonic() < deadline
                frame = json.loads(stream.recv(timeout=10))
            assert frame["status"] == "PASS"
            assert frame["faces"][0]["box"] == frame["box"]
            assert len(frame["frame"]) > 1000

        passes = daemon.get("/api/v1/events", status="PASS").json()["items"]
        assert {event["name"] for event in passes} == {"Eileen"}

        before = len(events(config))
        (tmp_path / "grace.jpg").write_bytes(grace)
        assert edge_face("enroll", "Grace", tmp_path / "grace.jpg", config=config).returncode == 0
        matched = daemon.post("/process-frame/", files={"frame": ("g.jpg", grace)}).json()
        assert len(matched["embedding"]) == 128
        recognised = edge_face("recognize", "--json", tmp_path / "grace.jpg", config=config)
        assert json.loads(recognised.stdout)["faces"][0]["name"] == "Grace"
        uploads = [event for event in events(config)[before:] if event["name"] == "Grace"]
        assert uploads == [], "an uploaded photo made an event"

        metrics = {
            sample.name: sample.value
            for family in text_string_to_metric_families(daemon.get("/metrics").text)
            for sample in family.samples
        }
        assert metrics["edge_face_camera_up"] == 1
        assert metrics["edge_face_people"] == 2
        assert metrics["edge_face_storage_up"] == 1
        assert metrics["edge_face_events_held"] == 0
        assert metrics["edge_face_frames_total"] > 10
        assert requests.get(daemon.url + "/metrics", timeout=5).status_code == 401

        assert edge_face("remove", "Eileen", config=config).returncode == 0
        time.sleep(2)  # the daemon sees the command line's change within 2 s
        removed_at = time.time()
        time.sleep(3)
        late = [event for event in events(config) if event["timestamp"] > removed_at and event["status"] == "PASS"]
        assert late == []

        code, took_s = daemon.end(signal.SIGINT)
        assert code == 0, daemon.log
        assert took_s < 2
    assert "Traceback" not in daemon.log


def test_kill_9_leaves_no_child_and_nothing_is_lost(tmp_path: Path, eileen: bytes) -> None:
    clip = write_clip(tmp_path / "clip.avi", (astronaut(), 2))
    decision = {"cooldown": 0, "presence_timeout": 0.5}  # so that each life of the daemon sees a new visit
    config = write_config(tmp_path, {"camera": {"source": clip, "loop": "true"}, "decision": decision})
    (tmp_path / "e.jpg").write_bytes(eileen)
    assert edge_face("enroll", "Eileen", tmp_path / "e.jpg", config=config).returncode == 0
    for _ in range(2):
        with Daemon(config) as daemon:
            daemon.wait_for("ok")
            time.sleep(2)
            assert daemon.process is not None
            children = (Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children")).read_text().split()
            assert children
            daemon.end(signal.SIGKILL)
            time.sleep(0.5)
            assert not [child for child in children if _is_alive(int(child))]
    assert json.loads(edge_face("people", "--json", config=config).stdout)[0]["name"] == "Eileen"
    seqs = [event["seq"] for event in events(config)]
    assert seqs == list(range(1, len(seqs) + 1))
    assert len(seqs) >= 2


def _is_alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_a_configured_camera_that_is_missing_is_lost_and_no_demo_starts(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"camera": {"source": "/dev/video-that-is-not-there"}})
    with Daemon(config, "run", "--demo-without-camera") as daemon:
        deadline = time.monotonic() + 20
        while "is lost" not in (daemon.log if daemon.health() else ""):
            assert time.monotonic() < deadline, daemon.log
            time.sleep(0.1)
        assert daemon.health() == "failed"
        assert requests.get(daemon.url + "/healthz", timeout=5).status_code == 503
        (camera,) = daemon.get("/api/v1/status").json()["cameras"]
        assert camera["state"] == "lost"
        assert "/dev/video-that-is-not-there" in camera["detail"]
        assert "demo" not in daemon.log
        assert daemon.end(signal.SIGTERM)[0] == 0


@pytest.mark.skipif(any(Path("/dev").glob("video*")), reason="this machine has a camera")
async def test_without_a_camera_run_starts_the_demo(tmp_path: Path, broker: Broker) -> None:
    """The demo for one round: the enrolled visitor passes, the stranger does not; nothing else is touched."""
    config = write_config(
        tmp_path,
        {
            "mqtt": {"host": "127.0.0.1", "port": broker.port},
            "webhook": {"url": "http://127.0.0.1:9/"},
            "attendance": {"csv": tmp_path / "attendance.csv"},
        },
    )
    async with watching(broker) as watcher:
        with Daemon(config, "run", "--demo-without-camera") as daemon:
            await until(lambda: len(watcher.events()) >= 2, 60)
            assert daemon.end()[1] < 2
    told = [(event["status"], event["name"]) for event in watcher.events()[:2]]
    assert told == [("PASS", "Eileen Collins"), ("REJECT", None)]
    assert all(event["demo"] is True for event in watcher.events())
    assert all(event["node"] == "demo" for event in watcher.events())
    assert not [message for message in watcher.messages if "homeassistant" in str(message.topic)]
    assert "No camera was found" in daemon.log
    assert not (tmp_path / "attendance.csv").exists()
    assert not (tmp_path / "edge-face.db").exists()


def test_two_cameras_each_with_its_own_events(tmp_path: Path, eileen: bytes) -> None:
    (tmp_path / "front.avi").parent.mkdir(exist_ok=True)
    config = write_config(
        tmp_path,
        {
            "camera": {"fps": 5},
            "camera:front": {"source": write_clip(tmp_path / "front.avi", (astronaut(), 3))},
            "camera:back": {"source": write_clip(tmp_path / "back.avi", (hopper(), 3))},
        },
    )
    (tmp_path / "e.jpg").write_bytes(eileen)
    edge_face("enroll", "Eileen", tmp_path / "e.jpg", config=config)
    with Daemon(config) as daemon:
        assert daemon.wait(60) == 0, daemon.log
    assert sorted((event["camera"], event["status"]) for event in events(config)) == [
        ("back", "REJECT"),
        ("front", "PASS"),
    ]


def test_a_port_in_use_is_said_in_one_line(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.avi", (blank(), 1))
    config = write_config(tmp_path, {"camera": {"source": clip, "loop": "true"}})
    with Daemon(config) as daemon:
        daemon.wait_for("ok")
        other = tmp_path / "other"
        other.mkdir()
        (other / "config.ini").write_text(config.read_text())
        second = edge_face("run", config=other / "config.ini")
    assert second.returncode == 1
    assert str(daemon.port) in second.stderr.splitlines()[-1]
    assert "Traceback" not in second.stderr


def test_the_demo_as_a_configured_source_is_the_demo(tmp_path: Path) -> None:
    """It touches nothing of the real system, whichever way it is started."""
    config = write_config(tmp_path, {"camera": {"source": "demo"}, "attendance": {"csv": tmp_path / "a.csv"}})
    with Daemon(config) as daemon:
        daemon.wait_for("ok")
        time.sleep(4)
        assert daemon.end()[0] == 0
    assert "PASS    Eileen Collins" in daemon.log
    assert not (tmp_path / "a.csv").exists()
    assert not (tmp_path / "edge-face.db").exists()


def test_a_second_daemon_on_the_same_database_is_refused(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.avi", (blank(), 1))
    config = write_config(tmp_path, {"camera": {"source": clip, "loop": "true"}})
    with Daemon(config) as daemon:
        daemon.wait_for("ok")
        second = edge_face("run", config=config)
        assert second.returncode == 1
        assert "already running" in second.stderr
        daemon.end(signal.SIGKILL)
    with Daemon(config) as daemon:
        daemon.wait_for("ok")  # the lock of a killed daemon is no lock


def test_a_database_that_is_taken_away_ends_the_daemon_loudly(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.avi", (blank(), 1))
    config = write_config(tmp_path, {"camera": {"source": clip, "loop": "true"}})
    with Daemon(config) as daemon:
        daemon.wait_for("ok")
        (tmp_path / "edge-face.db").unlink()
        assert daemon.wait(5) == 1
    assert "was deleted or replaced" in daemon.log.splitlines()[-1]


def test_a_restart_is_no_new_visit(tmp_path: Path, eileen: bytes) -> None:
    clip = write_clip(tmp_path / "clip.avi", (astronaut(), 60))
    config = write_config(tmp_path, {"camera": {"source": clip}, "decision": {"cooldown": 30}})
    (tmp_path / "e.jpg").write_bytes(eileen)
    assert edge_face("enroll", "Eileen", tmp_path / "e.jpg", config=config).returncode == 0
    for _ in range(2):
        with Daemon(config) as daemon:
            daemon.wait_for("ok")
            time.sleep(2)
            daemon.end(signal.SIGKILL)
    assert [event["status"] for event in events(config)] == ["PASS"]


async def test_while_another_program_holds_the_database_people_still_pass(
    tmp_path: Path, broker: Broker, eileen: bytes
) -> None:
    """The event is told in time, and stored once, when the database can be written again."""
    clip = write_clip(tmp_path / "clip.avi", (blank(), 3), (astronaut(), 30))
    config = write_config(tmp_path, {"camera": {"source": clip}, "mqtt": {"host": "127.0.0.1", "port": broker.port}})
    (tmp_path / "e.jpg").write_bytes(eileen)
    assert edge_face("enroll", "Eileen", tmp_path / "e.jpg", config=config).returncode == 0
    async with watching(broker) as watcher:
        with Daemon(config) as daemon:
            await asyncio.to_thread(daemon.wait_for, "ok")
            with contextlib.closing(sqlite3.connect(tmp_path / "edge-face.db", isolation_level=None)) as other:
                other.execute("BEGIN EXCLUSIVE")
                await until(lambda: watcher.events(), 30)
                await until(lambda: daemon.health() == "degraded", 5)
            await until(lambda: daemon.health() == "ok", 10)
            stored = await asyncio.to_thread(events, config)
            assert daemon.end()[0] == 0
    assert [(event["status"], event["seq"]) for event in watcher.events()] == [("PASS", 1)]
    assert stored == watcher.events()


class TestRealClips:
    """The evaluation clips, in real time."""

    @pytest.fixture
    def man(self, data: Path) -> Path:
        return data / "video" / "one-man-turning-head.mp4"

    @pytest.mark.parametrize("enrolled", [True, False])
    async def test_one_man_is_one_visit(self, tmp_path: Path, broker: Broker, man: Path, enrolled: bool) -> None:
        config = write_config(tmp_path, {"camera": {"source": man}, "mqtt": {"host": "127.0.0.1", "port": broker.port}})
        if enrolled:
            capture = cv2.VideoCapture(str(man))
            _, first = capture.read()
            cv2.imwrite(str(tmp_path / "first.png"), first)
            assert edge_face("enroll", "Man", tmp_path / "first.png", config=config).returncode == 0
        async with watching(broker) as watcher:
            with Daemon(config) as daemon:
                await until(lambda: daemon.process is not None and daemon.process.poll() is not None, 60)
                assert daemon.wait(1) == 0, daemon.log
            await until(lambda: watcher.texts("gate-1/status")[-1:] == ["offline"])
        told = [(event["status"], event["reason"], event["name"]) for event in watcher.events()]
        assert told == [("PASS", "match", "Man") if enrolled else ("REJECT", "unknown", None)]
        presences = [json.loads(text) for text in watcher.texts("/presence")]
        assert [presence["present"] for presence in presences][-1] is False
        on = [presence for presence in presences if presence["present"]]
        assert on[-1]["persons"] == (["Man"] if enrolled else [])
        assert {presence["since"] for presence in on} == {on[0]["since"]}, "presence went off in between"

    @pytest.mark.slow
    @pytest.mark.paired
    @pytest.mark.parametrize("clip", ["people-from-behind-no-face.mp4", "hands-no-face.mp4"])
    def test_no_face_no_event(self, tmp_path: Path, data: Path, clip: str) -> None:
        config = write_config(tmp_path, {"camera": {"source": data / "video" / clip, "realtime": "false", "fps": 0}})
        with Daemon(config) as daemon:
            assert daemon.wait(280) == 0, daemon.log
        assert events(config) == []
        assert os.path.getsize(tmp_path / "edge-face.db") > 0  # noqa: PTH202


def test_a_zip_of_faces_over_the_api(tmp_path: Path, eileen: bytes, grace: bytes) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("katya.jpg", eileen)
        archive.writestr("zero.jpg", grace)
        archive.writestr("../ema.jpg", grace)
        archive.writestr("broken.jpg", b"no picture")
    config = write_config(
        tmp_path, {"camera": {"source": write_clip(tmp_path / "c.avi", (blank(), 1)), "loop": "true"}}
    )
    with Daemon(config) as daemon:
        daemon.wait_for("ok")
        reply = daemon.post("/register-faces", files={"zip": ("faces.zip", out.getvalue())})
        assert reply.status_code == 200
        assert reply.json()["success"] is True
        assert daemon.get("/faces").json() == ["katya", "zero"]
        assert daemon.post("/unregister", data={"name": "katya"}).json()["success"] is True
        gone = daemon.post("/unregister", data={"name": "katya"})
        assert (gone.status_code, gone.json()["success"], gone.json()["error"]) == (404, False, "not_found")
        assert daemon.get("/faces").json() == ["zero"]
