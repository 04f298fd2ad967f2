"""The configuration read anew while the daemon runs: by SIGHUP, by MQTT, by the API."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiomqtt
from websockets.sync.client import connect

from tests.integration.test_daemon import write_clip
from tests.support.broker import Broker, until, watching
from tests.support.daemon import Daemon, edge_face, write_config
from tests.support.photos import astronaut, blank, jpeg
from tests.support.receiver import Receiver


class Gate:
    """A daemon on clips in a loop, and its configuration, which a test changes."""

    def __init__(self, folder: Path, **sections: dict[str, Any]) -> None:
        self.folder = folder
        clip = write_clip(folder / "clip.avi", (blank(), 1), (astronaut(), 60))
        self.camera = {"source": clip, "loop": "true"}
        self.sections = {"camera:front": self.camera, "camera:back": self.camera, **sections}
        self.config = write_config(folder, self.sections)
        self.daemon = Daemon(self.config)
        self.port = self.daemon.port

    def write(self, **sections: dict[str, Any]) -> None:
        kept = {"api": {"port": self.port}}
        self.sections = {**kept, **self.sections, **sections}
        write_config(self.folder, {name: keys for name, keys in self.sections.items() if keys})

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.daemon.get("/api/v1/status").json()
        return found

    def cameras(self) -> dict[str, dict[str, Any]]:
        return {camera["id"]: camera for camera in self.status()["cameras"]}

    def children(self) -> set[int]:
        assert self.daemon.process
        pid = self.daemon.process.pid
        return {int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}

    def reload(self) -> Any:
        answer = self.daemon.post("/api/v1/reload")
        assert answer.status_code == 200, answer.text
        return answer.json()


def shown_threshold(daemon: Daemon) -> float:
    """Of the newest frame."""
    url = daemon.url.replace("http", "ws") + "/ws/face-stream?frame=0"
    with connect(url, additional_headers=daemon.auth) as stream:
        threshold: float = json.loads(stream.recv(timeout=10))["threshold"]
        return threshold


async def true(condition: Callable[[], Any], limit_s: float = 30) -> None:
    """The same for what asks the daemon, and so blocks."""
    async with asyncio.timeout(limit_s):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.1)


async def test_by_signal_by_mqtt_and_by_the_api(tmp_path: Path, broker: Broker, receiver: Receiver) -> None:
    """What can be changed in place is, without losing a camera or its child; a file that is wrong changes nothing."""
    gate = Gate(tmp_path, mqtt={"host": "127.0.0.1", "port": broker.port}, webhook={"url": receiver.url})
    (tmp_path / "eileen.jpg").write_bytes(jpeg(astronaut()))
    assert edge_face("enroll", "Eileen", tmp_path / "eileen.jpg", config=gate.config).returncode == 0
    async with watching(broker) as watcher:
        with gate.daemon as daemon:
            await asyncio.to_thread(daemon.wait_for, "ok")
            await until(lambda: {event["camera"] for event in watcher.events()} == {"front", "back"}, 20)
            children = gate.children()
            frames = gate.cameras()["front"]["frames"]

            # A retained command is ignored, a live one is not.
            gate.write(log={"level": "debug"}, stream={"jpeg_quality": 33}, decision={"threshold": 0.1})
            async with aiomqtt.Client("127.0.0.1", broker.port) as client:
                await client.publish("edge-face/gate-1/cmd/reload", "", qos=1, retain=False)
            await until(lambda: "asked by MQTT): [decision] threshold, [stream] jpeg_quality, [log]" in daemon.log, 10)
            assert daemon.process
            gate.write(decision={"threshold": 0.2})
            daemon.process.send_signal(signal.SIGHUP)
            await until(lambda: "asked by SIGHUP): [decision] threshold" in daemon.log, 10)
            assert await asyncio.to_thread(shown_threshold, daemon) == 0.2
            gate.write(decision={"threshold": 0.45}, storage={"retention": 7})
            assert await asyncio.to_thread(gate.reload) == {
                "changed": ["[decision] threshold", "[storage] retention"],
                "needs_restart": [],
                "cameras": {"added": [], "removed": [], "restarted": []},
            }

            audit = edge_face("audit", "--json", config=gate.config).stdout.splitlines()
            changes = [row for row in map(json.loads, audit) if row["what"] == "configured"]
            assert changes[-1]["storage.retention"] == "7"

            # Everything that is wrong is said at once, everywhere, and nothing of it is in force.
            gate.write(decision={"threshold": 7, "margn": 1}, webhook={})
            refused = await asyncio.to_thread(daemon.post, "/api/v1/reload")
            problems = [
                "[decision] margn: no such key; did you mean margin?",
                "[decision] threshold: expected 0.05 to 1, not 7",
            ]
            assert refused.status_code == 422
            assert sorted(refused.json()["problems"]) == problems
            status = await asyncio.to_thread(gate.status)
            assert sorted(status["config"]["problems"]) == problems
            assert all(problem in daemon.log for problem in problems)
            assert set(status["sinks"]) == {"mqtt", "webhook:default"}

            # Through all of this the cameras were the same.
            assert gate.children() == children
            assert all(camera["state"] == "ok" and not camera["restarts"] for camera in gate.cameras().values())
            assert gate.cameras()["front"]["frames"] > frames
            assert "is lost" not in daemon.log
            assert watcher.texts("/camera") == ["ok", "ok"]
            assert set(watcher.texts("gate-1/status")) == {"online"}
            assert daemon.end()[0] == 0


async def test_a_retained_reload_is_ignored(tmp_path: Path, broker: Broker) -> None:
    gate = Gate(tmp_path, mqtt={"host": "127.0.0.1", "port": broker.port})
    async with aiomqtt.Client("127.0.0.1", broker.port) as client:
        await client.publish("edge-face/gate-1/cmd/reload", "", qos=1)  # nobody listens yet
        await client.publish("edge-face/gate-1/cmd/reload", "now", qos=1, retain=True)
    with gate.daemon as daemon:
        await until(lambda: "the retained command on edge-face/gate-1/cmd/reload is ignored" in daemon.log, 20)
        assert "reloaded" not in daemon.log


async def test_cameras_and_sinks_come_change_and_go(tmp_path: Path, broker: Broker, receiver: Receiver) -> None:
    gate = Gate(tmp_path, mqtt={"host": "127.0.0.1", "port": broker.port})
    (tmp_path / "eileen.jpg").write_bytes(jpeg(astronaut()))
    assert edge_face("enroll", "Eileen", tmp_path / "eileen.jpg", config=gate.config).returncode == 0
    async with watching(broker) as watcher:
        with gate.daemon as daemon:
            await asyncio.to_thread(daemon.wait_for, "ok")
            await until(lambda: '"Eileen"' in "".join(watcher.texts("back/presence")[-1:]), 20)
            front = (await asyncio.to_thread(gate.cameras))["front"]

            # One goes, one comes, a webhook and a file as well; the third camera does not notice.
            gate.write(
                **{"camera:back": {}, "camera:side": gate.camera},
                webhook={"url": receiver.url},
                attendance={"csv": tmp_path / "rows.csv"},
                node={"id": "gate-9"},
            )
            done = await asyncio.to_thread(gate.reload)
            assert done["cameras"] == {"added": ["side"], "removed": ["back"], "restarted": []}
            assert done["needs_restart"] == ["[node] id"]
            await until(lambda: receiver.bodies, 20)
            assert receiver.bodies[0]["camera"] == "side"
            assert receiver.bodies[0]["node"] == "gate-1"
            await until(lambda: watcher.texts("side/camera")[-1:] == ["ok"])
            assert not json.loads(watcher.texts("back/presence")[-1])["present"]
            assert watcher.texts("back/camera")[-1] == "lost"
            rows = tmp_path / "rows.csv"
            await until(lambda: rows.exists() and "Eileen" in rows.read_text())
            after = await asyncio.to_thread(gate.cameras)
            assert list(after) == ["front", "side"]
            assert after["front"]["frames"] > front["frames"]
            assert after["front"]["restarts"] == 0
            assert (await asyncio.to_thread(gate.status))["config"]["needs_restart"] == ["[node] id"]

            # The only camera may change, too, and comes up with its new settings.
            before = gate.children()
            gate.write(**{"camera:side": {}, "camera:front": {**gate.camera, "fps": 4}})
            done = await asyncio.to_thread(gate.reload)
            assert done["cameras"] == {"added": [], "removed": ["side"], "restarted": ["front"]}
            await true(lambda: gate.cameras()["front"]["state"] == "ok" and gate.children() - before)
            # Who stood there all the time is not let in anew.
            assert [event["status"] for event in watcher.events() if event["camera"] == "front"] == ["PASS"]
            assert daemon.end()[0] == 0
