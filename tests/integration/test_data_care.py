"""Backup, restore and a damaged disk, with a real daemon and the commands beside it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import time
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import pytest
import requests

from edge_face import settings
from edge_face.backups import Backups
from edge_face.caretaker import DAY_S, RETRY_S, SETTLE_S, open_store
from edge_face.clock import SystemClock
from edge_face.store import Store
from edge_face.vault import new_key
from tests.support.clock import HandClock
from tests.support.daemon import Daemon, edge_face, events, write_config
from tests.support.photos import astronaut, jpeg

FACE = np.full(128, 0.1, np.float32)


def names(config: Path) -> list[str]:
    return [person["name"] for person in json.loads(edge_face("people", "--json", config=config).stdout)]


def enrol(config: Path, *who: str) -> None:
    """Without photos, which take longer."""
    with closing(Store(config.with_name("edge-face.db"), SystemClock())) as store:
        for number, name in enumerate(who):
            store.add_faces(name, [FACE + number])


def test_backup_while_it_runs_and_restore_when_it_is_stopped(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"camera": {"source": "/dev/video-that-is-not-there"}})
    enrol(config, "Katya", "Zero", "Eve")
    saved, secret = tmp_path / "gate.backup", tmp_path / "passphrase"
    secret.write_text("correct horse\n")
    with Daemon(config) as daemon:
        daemon.wait_for("failed")  # there is no camera
        done = edge_face("backup", saved, "--passphrase-file", secret, config=config)
        assert done.returncode == 0, done.stderr
        assert requests.delete(f"{daemon.url}/api/v1/people/katya", headers=daemon.auth, timeout=10).status_code == 200
        patch = {"json": {"blocked": True}, "headers": daemon.auth, "timeout": 10}
        assert requests.patch(f"{daemon.url}/api/v1/people/eve", **patch).status_code == 200
        assert daemon.post("/login", json={"token": daemon.token}).status_code == 200
        refused = edge_face("restore", saved, "--passphrase-file", secret, config=config)
        assert refused.returncode == 1
        assert "already running" in refused.stderr
        status = daemon.get("/api/v1/status").json()["storage"]
        head = status["audit_head"]
        assert status["restored"] is None
        daemon.end(signal.SIGKILL)
    secret.write_text("wrong")
    assert "passphrase" in edge_face("restore", saved, "--passphrase-file", secret, config=config).stderr
    assert names(config) == ["Zero", "Eve"]
    assert edge_face("remove", "zero", config=config).returncode == 0
    enrol(config, "Later")
    secret.write_text("correct horse")
    done = edge_face("restore", saved, "--passphrase-file", secret, config=config)
    assert done.returncode == 0, done.stderr
    assert names(config) == ["Eve"]
    with closing(sqlite3.connect(tmp_path / "edge-face.db")) as db:
        assert db.execute("SELECT blocked FROM people").fetchall() == [(1,)]
    assert len(Backups(tmp_path / "edge-face.db", tmp_path / "edge-face.db.backups").files()) == 1
    verified = edge_face("audit", "--verify", "--head", head, config=config)
    assert verified.returncode == 0, verified.stderr
    assert "is whole" in verified.stdout
    rows = [json.loads(line) for line in edge_face("audit", "--json", config=config).stdout.splitlines()]
    assert {"started", "configured", "removed", "changed", "login", "token made", "restored"} <= {
        r["what"] for r in rows
    }
    with closing(sqlite3.connect(tmp_path / "edge-face.db", isolation_level=None)) as db:
        db.execute("DROP TRIGGER audit_stands")
        db.execute("UPDATE audit SET data = '{}' WHERE n = 2")
    verified = edge_face("audit", "--verify", config=config)
    assert verified.returncode == 1
    assert "row 2 was altered" in verified.stderr


@pytest.mark.slow
@pytest.mark.paired
def test_a_damaged_database_is_replaced_and_that_is_said_loudly(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(2):
        (pictures / f"{number}.jpg").write_bytes(jpeg(astronaut()))
    config = write_config(tmp_path, {"camera": {"source": pictures, "loop": "true", "fps": 2}})
    enrol(config, "Katya", "Zero")
    database, folder = tmp_path / "edge-face.db", tmp_path / "edge-face.db.backups"
    Backups(database, folder).make(time.time())
    with Daemon(config) as daemon:
        daemon.wait_for("ok", limit_s=60)
        assert daemon.get("/api/v1/status").json()["storage"]["backups"]["count"] == 1
        assert requests.delete(f"{daemon.url}/api/v1/people/katya", headers=daemon.auth, timeout=10).status_code == 200
        deadline = time.monotonic() + 20
        before = Backups(database, folder).files()[0].stat().st_ino
        while Backups(database, folder).files()[0].stat().st_ino == before:  # Katya leaves the backup as well
            assert time.monotonic() < deadline, daemon.log
            time.sleep(0.1)
        daemon.end(signal.SIGKILL)
    for log in tmp_path.glob("edge-face.db-*"):
        log.unlink()
    content = bytearray(database.read_bytes())
    content[1024:20480] = b"\xaa" * (20480 - 1024)
    database.write_bytes(content)
    with Daemon(config) as daemon:
        daemon.wait_for("degraded", limit_s=60)
        assert "THE DATABASE WAS DAMAGED" in daemon.log
        assert daemon.get("/api/v1/status").json()["storage"]["restored"]["reason"]
        daemon.end()
    with Daemon(config) as daemon:
        daemon.wait_for("ok", limit_s=60)
    assert names(config) == ["Zero"]


async def test_a_folder_of_backups_that_fails_ends_no_daemon(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A stick that was pulled out, a share that is away: the gate starts and works, and the status says it."""
    folder = tmp_path / ("x" * 300)  # the kernel answers with an error that is not "there is no such folder"
    config = settings.Config(storage=settings.Storage(path=str(tmp_path / "edge-face.db"), backups=str(folder)))
    with ExitStack() as locks:
        store, caretaker = open_store(config, SystemClock(), locks)
        for _ in range(2):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await caretaker.run()
        assert "cannot be used: File name too long" in caretaker.payload()["backups"]["error"]
        assert caplog.text.count("cannot be used") == 2, "once at the start, once while it runs"
        store.close()


async def test_backups_are_made_daily_and_not_by_a_box_that_restarts_all_the_time(tmp_path: Path) -> None:
    clock = HandClock(date=time.time())
    config = settings.Config(storage=settings.Storage(path=str(tmp_path / "x.db")))
    with ExitStack() as locks:
        store, caretaker = await asyncio.to_thread(open_store, config, clock, locks)
        store.add_faces("Katya", [FACE])
        files = Backups(store.path, tmp_path / "x.db.backups").files

        async def count_after(seconds: float) -> int:
            clock.now += seconds
            clock.date += seconds
            await caretaker.look()
            return len(files())

        assert await count_after(SETTLE_S - 1) == 0
        assert await count_after(2) == 1
        assert await count_after(DAY_S - 1) == 1
        assert await count_after(2) == 2
        said = caretaker.payload()
        assert said["backups"]["count"] == 2
        assert said["backups"]["error"] == ""
        (tmp_path / "x.db.backups").rename(tmp_path / "elsewhere")
        (tmp_path / "x.db.backups").write_text("in the way")
        await count_after(DAY_S)
        assert caretaker.payload()["backups"]["error"]
        (tmp_path / "x.db.backups").unlink()
        assert await count_after(RETRY_S + 1) == 1
        assert caretaker.payload()["backups"]["error"] == ""
        store.close()


def test_a_daemon_without_the_right_key_says_so_and_lets_nobody_in(tmp_path: Path) -> None:
    """And with it, all goes on: what is enrolled beside it is encrypted as well."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(2):
        (pictures / f"{number}.jpg").write_bytes(jpeg(astronaut()))
    camera = {"camera": {"source": pictures, "loop": "true", "fps": 5}, "decision": {"cooldown": 0}}
    key, credentials = new_key(), tmp_path / "credentials"
    credentials.mkdir()
    config = write_config(tmp_path, camera | {"storage": {"keep_faces": "true"}})
    file = credentials / "config_storage.template_key"
    file.write_text(f"{key}\n")
    with_key = {"env": os.environ | {"CREDENTIALS_DIRECTORY": str(credentials)}}
    done = edge_face("enroll", "Eileen", pictures / "0.jpg", config=config, **with_key)
    assert done.returncode == 0, done.stderr
    with Daemon(config) as daemon:
        assert daemon.wait(30) == 1
        assert "the templates are encrypted with the key" in daemon.log
        assert "[storage] template_key is empty" in daemon.log
    file.write_text(new_key())
    with Daemon(config, env={"CREDENTIALS_DIRECTORY": str(credentials)}) as daemon:
        assert daemon.wait(30) == 1
        assert "template_key is another" in daemon.log
    checked = edge_face("check", config=config)
    assert checked.returncode == 1
    assert "template_key is empty" in checked.stdout
    assert events(config) == []
    file.write_text(key)
    with Daemon(config, env={"CREDENTIALS_DIRECTORY": str(credentials)}) as daemon:
        daemon.wait_for("ok", limit_s=60)
        deadline = time.monotonic() + 30
        while not [event for event in events(config) if (event["status"], event["name"]) == ("PASS", "Eileen")]:
            assert time.monotonic() < deadline, daemon.log
            time.sleep(0.2)
        assert daemon.get("/api/v1/status").json()["storage"]["templates"] == {"encrypted": True, "unreadable": 0}
        face = daemon.get("/api/v1/people/eileen").json()["faces"][0]
        shown = daemon.get(f"/api/v1/people/eileen/faces/{face['id']}/thumbnail.jpg")
        assert shown.content.startswith(b"\xff\xd8")
        assert shown.content[:200] not in (tmp_path / "edge-face.db").read_bytes()
        locked = edge_face("templates", "--decrypt", config=config, **with_key)
        assert "already running" in locked.stderr
        # Somebody gives her face to another person, in the file: nobody is let in by it, and health says so.
        with closing(sqlite3.connect(tmp_path / "edge-face.db")) as db:
            db.executescript(
                "INSERT INTO people (id, name, created_at) SELECT 'mallory', 'Mallory', created_at FROM people; "
                "UPDATE templates SET person_id = 'mallory'"
            )
        daemon.wait_for("degraded")
        assert daemon.get("/api/v1/status").json()["people"] == 0
        assert key not in daemon.log
