"""The older projects' routes on a real daemon with a camera, and a remote server that it asks."""

from __future__ import annotations

import csv
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
import requests

from tests.integration.test_daemon import write_clip
from tests.support.daemon import Daemon, edge_face, events, write_config
from tests.support.photos import astronaut, blank


class MatchServer:
    """Says Moctar of everybody."""

    def __init__(self) -> None:
        self.pictures: list[bytes] = []
        self.times: list[float] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.times.append(time.monotonic())
                outer.pictures.append(body[body.index(b"\xff\xd8") : body.rindex(b"\xff\xd9") + 2])
                answer = json.dumps({"match": "Moctar"}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_args: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/match"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[MatchServer]:
    server = MatchServer()
    yield server
    server.close()


def test_a_camera_seen_through_the_older_routes(tmp_path: Path, eileen: bytes, server: MatchServer) -> None:
    rows = tmp_path / "matches.csv"
    config = write_config(
        tmp_path,
        {
            "camera": {
                "source": write_clip(tmp_path / "clip.avi", (astronaut(), 3), (blank(), 4)),
                "loop": "true",
            },
            "remote": {"match_url": server.url, "interval": 1},
            "attendance": {"csv": rows},
        },
    )
    (tmp_path / "e.jpg").write_bytes(eileen)
    assert edge_face("enroll", "Eileen", tmp_path / "e.jpg", "--external-id", "7", config=config).returncode == 0
    with Daemon(config) as daemon:
        daemon.wait_for("ok")
        auth = daemon.auth
        hashes: list[str | None] = []
        deadline = time.monotonic() + 40
        while not (any(hashes) and hashes[-1] is None):
            assert time.monotonic() < deadline, hashes
            hashes.append(requests.get(f"{daemon.url}/hash", headers=auth, timeout=5).json()["hash"])
            time.sleep(0.1)
        assert len(set(hashes) - {None}) == 1, "one person"

        with requests.get(f"{daemon.url}/streaming", headers=auth, timeout=20, stream=True) as stream:
            data = b""
            for chunk in stream.iter_content(4096):
                data += chunk
                if b"--frame" in data[20:]:
                    break
        picture = data[data.index(b"\xff\xd8") : data.rindex(b"\xff\xd9") + 2]
        assert cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR).shape == (480, 640, 3)

        listed = daemon.get("/student_attendance").json()
        assert {(row["name"], row["external_id"], row["source"]) for row in listed} == {("Eileen", "7", "camera")}
        assert "camera" in edge_face("attendance", "--date", "today", config=config).stdout
        before, began = len(events(config)), time.monotonic()
        match = daemon.post("/match", files={"image": ("frame.jpg", eileen, "image/jpeg")})
        assert match.json() == {"match": "Eileen"}
        found = events(config)
        rounds = (time.monotonic() - began) / 7 + 1
        assert len(found) - before <= rounds, "the camera's own, one in each round of the clip"
        assert daemon.health() == "ok"
        assert daemon.end()[0] == 0
    assert server.pictures
    assert cv2.imdecode(np.frombuffer(server.pictures[0], np.uint8), cv2.IMREAD_COLOR).shape == (480, 640, 3)
    assert all(after - before > 0.9 for before, after in zip(server.times, server.times[1:], strict=False))
    with rows.open(newline="") as file:
        names = [row["Name"] for row in csv.DictReader(file)]
    assert set(names) == {"Eileen", "Moctar"}
    assert {event["name"] for event in found} == {"Eileen"}, "what the other server says is no event"
