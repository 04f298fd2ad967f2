"""A real daemon on a disk that is full, read-only or broken: it lets people in, tells it, and forgets no number."""

from __future__ import annotations

import csv
import json
import signal
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests
from websockets.sync.client import connect

from edge_face import pages
from edge_face.clock import SystemClock
from edge_face.sinks.csv import local_time
from edge_face.store import Store
from tests.integration.test_daemon import write_clip
from tests.support.broker import Broker, Watcher, until, watching
from tests.support.daemon import Daemon, edge_face, write_config
from tests.support.disk import break_card, broken_card, mend_card, no_room, small_disk
from tests.support.photos import astronaut
from tests.support.receiver import Receiver


class Gate:
    """A configuration with its database in `folder`, where Eileen is enrolled; she passes about once a second."""

    def __init__(self, tmp_path: Path, folder: Path, broker: Broker, eileen: bytes, **sections: dict[str, Any]) -> None:
        self.database = folder / "edge-face.db"
        self.config = write_config(
            tmp_path,
            {
                "camera": {"source": write_clip(tmp_path / "clip.avi", (astronaut(), 1)), "loop": "true"},
                "decision": {"cooldown": 0, "presence_timeout": 0.5},
                "storage": {"path": self.database},
                "mqtt": {"host": "127.0.0.1", "port": broker.port},
                **sections,
            },
        )
        (tmp_path / "e.jpg").write_bytes(eileen)
        assert edge_face("enroll", "Eileen", tmp_path / "e.jpg", config=self.config).returncode == 0
        self.auth = {"Authorization": f"Bearer {edge_face('token', config=self.config).stdout.strip()}"}

    def storage(self, daemon: Daemon) -> dict[str, Any]:
        found: dict[str, Any] = self.get(daemon, "/api/v1/status")["storage"]
        return found

    def get(self, daemon: Daemon, path: str) -> dict[str, Any]:
        found: dict[str, Any] = requests.get(daemon.url + path, headers=self.auth, timeout=10).json()
        return found

    def register(self, daemon: Daemon, photo: bytes, path: str = "/register") -> requests.Response:
        form, files = {"name": "Grace"}, {"image": ("g.jpg", photo)}
        return requests.post(daemon.url + path, headers=self.auth, data=form, files=files, timeout=30)

    def history(self) -> tuple[list[int], list[tuple[int, int]]]:
        """Numbers of the stored events, and the first and last of those in notes. The file is whole, and together
        they are all the numbers there are, each once.
        """
        with closing(Store(self.database, SystemClock())) as store:
            with store.reading() as db:
                assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            stored = [event["seq"] for event in pages.each(store.events, newest_first=False)]
            missed = [(note.first_seq, note.last_seq) for note in reversed(store.missed())]
        noted = [seq for first, last in missed for seq in range(first, last + 1)]
        assert sorted(stored + noted) == list(range(1, len(stored) + len(noted) + 1))
        return stored, missed

    def passes(self) -> set[str]:
        """The times of the stored ones, as the attendance file has them; the very last may wait for the next start."""
        with closing(Store(self.database, SystemClock())) as store:
            with store.reading() as db:
                waiting = {seq for (seq,) in db.execute("SELECT seq FROM outbox WHERE target = 'csv'")}
            passed = list(pages.each(store.events, status="PASS", newest_first=False))
            assert waiting <= {passed[-1]["seq"]}
            return {local_time(event["timestamp"]) for event in passed if event["seq"] not in waiting}

    def rows(self, file: Path) -> list[str]:
        with file.open(newline="") as text:
            return [row[1] for row in csv.reader(text)][1:]


def seqs(watcher: Watcher) -> list[int]:
    return [event["seq"] for event in watcher.events()]


@pytest.mark.slow
@pytest.mark.paired
async def test_a_full_disk(tmp_path: Path, broker: Broker, receiver: Receiver, eileen: bytes, grace: bytes) -> None:
    """It fills while the daemon runs; the daemon is killed, starts on the full disk, and then there is room again."""
    with small_disk(tmp_path / "disk") as disk:
        rows = disk.folder / "attendance.csv"
        sections = {"webhook": {"url": receiver.url, "events": "PASS"}, "attendance": {"csv": rows}}
        gate = Gate(tmp_path, disk.folder, broker, eileen, **sections)
        async with watching(broker) as watcher:
            with Daemon(gate.config) as daemon:
                await until(lambda: len(seqs(watcher)) >= 2, 30)
                disk.fill()
                await until(lambda: gate.storage(daemon)["held"] >= 3, 30)
                assert daemon.health() == "degraded"
                assert gate.storage(daemon)["reason"] == "the disk is full"
                for path in ("/register", "/api/v1/people"):
                    refused = gate.register(daemon, grace, path)
                    assert (refused.status_code, refused.json()["error"]) == (503, "storage_unavailable")
                    assert "the disk is full" in refused.json()["message"]
                    assert refused.headers["Retry-After"]
                uri = daemon.url.replace("http", "ws") + "/ws/face-stream?frame=0"
                with connect(uri, additional_headers=gate.auth) as stream:
                    assert "Eileen" in {json.loads(stream.recv(timeout=10)).get("name") for _ in range(15)}
                await until(lambda: seqs(watcher)[-1] > gate.storage(daemon)["held"], 20)
                daemon.end(signal.SIGKILL)
            sent = seqs(watcher)[-1]

            with Daemon(gate.config) as daemon:  # on the full disk
                await until(lambda: seqs(watcher)[-1] >= sent + 3, 40)
                assert daemon.health() == "degraded"
                disk.free()
                await until(lambda: daemon.health() == "ok", 20)
                (note,) = gate.storage(daemon)["missed"]
                assert sent <= note["last_seq"]
                assert gate.get(daemon, "/api/v1/events")["missed"] == [note]
                assert gate.register(daemon, grace).status_code == 200
                await until(lambda: seqs(watcher)[-1] > note["last_seq"] + 5, 30)
                assert daemon.end()[0] == 0
            assert "the database can be written again" in daemon.log

        ids: dict[int, set[str]] = {}
        for event in watcher.events() + receiver.bodies:
            assert event["type"] == "face_event"
            ids.setdefault(event["seq"], set()).add(event["id"])
        assert all(len(known) == 1 for known in ids.values()), "a number was given twice"
        assert seqs(watcher) == sorted(set(seqs(watcher))), "an event was sent twice, or late"
        _, missed = gate.history()
        assert missed == [(note["first_seq"], note["last_seq"])]
        shown = edge_face("events", config=gate.config)
        assert f"events {missed[0][0]} to {missed[0][1]} were told but not stored" in shown.stderr
        written = gate.rows(rows)
        assert len(written) == len(set(written)), "a row twice"
        assert set(written) >= gate.passes(), "a row is missing"


@pytest.mark.slow
@pytest.mark.paired
async def test_a_read_only_disk_at_the_start(tmp_path: Path, broker: Broker, eileen: bytes, grace: bytes) -> None:
    with small_disk(tmp_path / "disk") as disk:
        gate = Gate(tmp_path, disk.folder, broker, eileen)
        disk.remount("ro")
        async with watching(broker) as watcher:
            with Daemon(gate.config) as daemon:
                await until(lambda: len(seqs(watcher)) >= 2, 40)
                assert daemon.health() == "degraded"
                assert gate.storage(daemon)["state"] == "failing"
                refused = gate.register(daemon, grace)
                assert refused.status_code == 503
                assert "the disk" in refused.json()["message"]
                assert edge_face("people", config=gate.config).stdout.startswith("Eileen")
                daemon.end(signal.SIGKILL)
            sent = seqs(watcher)[-1]
            with Daemon(gate.config) as daemon:
                await until(lambda: seqs(watcher)[-1] >= sent + 2, 40)
                disk.remount("rw")
                await until(lambda: daemon.health() == "ok", 20)
                assert gate.register(daemon, grace).status_code == 200
                assert daemon.end()[0] == 0
        assert seqs(watcher) == list(range(1, seqs(watcher)[-1] + 1)), "neither a gap nor a repeat"
        _, missed = gate.history()
        assert missed[0][0] == 1
        assert missed[0][1] >= sent


@pytest.mark.slow
@pytest.mark.paired
async def test_a_card_that_turns_read_only_under_the_daemon(tmp_path: Path, broker: Broker, eileen: bytes) -> None:
    """As cards die: the kernel writes nothing any more. Then the card is repaired, as at the next start."""
    with broken_card(tmp_path) as card:
        gate = Gate(tmp_path, card, broker, eileen)
        async with watching(broker) as watcher:
            with Daemon(gate.config) as daemon:
                await until(lambda: len(seqs(watcher)) >= 2, 30)
                break_card(card)
                before = seqs(watcher)[-1]
                await until(lambda: seqs(watcher)[-1] >= before + 4, 30)
                assert daemon.health() == "degraded"
                daemon.end(signal.SIGKILL)
            mend_card(card)
            sent = seqs(watcher)[-1]
            with Daemon(gate.config) as daemon:
                await until(lambda: seqs(watcher)[-1] >= sent + 2, 30)
                assert daemon.health() == "ok"
                assert daemon.end()[0] == 0
        assert seqs(watcher) == list(range(1, seqs(watcher)[-1] + 1)), "neither a gap nor a repeat"
        assert gate.history()[1]


@pytest.mark.timeout(120)
async def test_a_daemon_that_may_write_no_file(tmp_path: Path, broker: Broker, eileen: bytes) -> None:
    """The same without rights of root: a limit that the kernel sets on the running process."""
    rows = tmp_path / "attendance.csv"
    gate = Gate(tmp_path, tmp_path, broker, eileen, attendance={"csv": rows})
    async with watching(broker) as watcher:
        with Daemon(gate.config) as daemon:
            await until(lambda: len(seqs(watcher)) >= 1, 30)
            assert daemon.process is not None
            with no_room(daemon.process.pid):
                before = seqs(watcher)[-1]
                await until(lambda: seqs(watcher)[-1] >= before + 2, 30)
                assert daemon.health() == "degraded"
                written = len(gate.rows(rows))
            await until(lambda: daemon.health() == "ok", 20)
            await until(lambda: len(gate.rows(rows)) > written + 2, 30)
            assert daemon.end()[0] == 0
    assert seqs(watcher) == list(range(1, seqs(watcher)[-1] + 1))
    stored, missed = gate.history()
    assert (stored[: len(seqs(watcher))], missed) == (seqs(watcher), [])
    assert len(stored) <= len(seqs(watcher)) + 1  # what is decided while it ends
    assert sorted(gate.rows(rows)) == sorted(gate.passes()), "a row for each, and only one"
