"""The database file, on real SQLite files: opening, refusing, transactions, threads and processes."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from edge_face import migrations
from edge_face.database import lock_for_daemon
from edge_face.errors import NotFoundError, StoreError
from edge_face.events import Encoding
from edge_face.store import Store, StoreThread
from tests.support.clock import HandClock
from tests.support.disk import Disk, no_room, small_disk


def face(seed: int) -> Encoding:
    return np.random.default_rng(seed).normal(0, 0.1, 128).astype(np.float32)


def test_the_file_and_its_side_files_are_private(store: Store, path: Path) -> None:
    store.add_faces("Katya", [face(1)])
    files = list(path.parent.iterdir())
    assert len(files) == 3, "the database, its log and its shared memory"
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_missing_folder_is_told_and_not_made(tmp_path: Path, clock: HandClock) -> None:
    with pytest.raises(StoreError, match="No such file"):
        Store(tmp_path / "not-mounted" / "edge-face.db", clock)
    assert not (tmp_path / "not-mounted").exists()


def test_a_newer_database_is_refused_and_left_as_it_is(path: Path, clock: HandClock) -> None:
    Store(path, clock).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"newer edge-face \(schema 99"):
        Store(path, clock)
    assert path.read_bytes() == before


def test_another_program_s_database_is_refused(path: Path, clock: HandClock) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE bookmarks (url)")
    db.close()
    with pytest.raises(StoreError, match="another program"):
        Store(path, clock)


def test_what_is_no_database_is_refused(path: Path, clock: HandClock) -> None:
    path.write_bytes(b"hello, I am a photograph " * 100)
    with pytest.raises(StoreError, match="not a database"):
        Store(path, clock)


def test_damage_is_found(store: Store, path: Path, clock: HandClock) -> None:
    for number in range(50):
        store.add_faces(f"Person {number}", [face(number)])
    store.check()
    store.close()
    content = bytearray(path.read_bytes())
    content[4096 * 5 : 4096 * 12] = b"\xaa" * 4096 * 7
    path.write_bytes(content)
    with pytest.raises(StoreError), closing(Store(path, clock)) as damaged:
        damaged.check()


def test_a_migration_happens_completely_or_not_at_all(path: Path, clock: HandClock) -> None:
    Store(path, clock).close()
    broken = (*migrations.MIGRATIONS, "CREATE TABLE half (x);\nCREATE TABLE half (x);")
    db = sqlite3.connect(path, isolation_level=None)
    with pytest.raises(sqlite3.OperationalError):
        migrations.migrate(db, broken)
    steps = len(migrations.MIGRATIONS)
    assert migrations.check(db) == steps
    migrations.migrate(db, (*migrations.MIGRATIONS, "CREATE TABLE half (x);", "DROP TABLE half;"))
    assert migrations.check(db, ("",) * (steps + 2)) == steps + 2
    db.close()


def test_a_migration_that_ends_early_is_a_bug_that_is_told(path: Path) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    with pytest.raises(ValueError, match="inside a statement"):
        migrations.migrate(db, ("CREATE TABLE x (y",))
    db.close()


def test_many_processes_may_open_a_new_file_at_once(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from edge_face.store import Store; from edge_face.clock import SystemClock\n"
        "store = Store(Path(sys.argv[1]), SystemClock()); store.add_faces(sys.argv[2], []); store.close()"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", code, str(path), f"P{n}"], stderr=subprocess.PIPE, text=True)
        for n in range(4)
    ]
    complaints = [child.communicate(timeout=60)[1] for child in children]
    assert [child.returncode for child in children] == [0] * 4, complaints


def test_a_closed_store_says_so(path: Path, clock: HandClock) -> None:
    store = Store(path, clock)
    store.close()
    with pytest.raises(StoreError):
        store.people()


def test_a_failed_block_leaves_nothing_behind(store: Store) -> None:
    def fail() -> None:
        with store.writing() as db:
            db.execute("INSERT INTO retired_ids VALUES ('ghost')")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert store.add_faces("Ghost", []).id == "ghost"


def test_secrets_are_made_once(store: Store, path: Path, clock: HandClock) -> None:
    key = store.secret("pseudonyms")
    assert len(key) == 32
    other = Store(path, clock)
    assert other.secret("pseudonyms") == key
    assert other.secret("cookies") != key
    other.close()


def test_the_power_cut_and_privacy_settings_are_on(store: Store) -> None:
    with store.reading() as db:
        names = ("journal_mode", "synchronous", "foreign_keys", "secure_delete", "busy_timeout")
        assert [db.execute(f"PRAGMA {name}").fetchone()[0] for name in names] == ["wal", 2, 1, 1, 5000]


def test_any_thread_may_call(store: Store) -> None:
    def work() -> None:
        for _ in range(20):
            store.add_faces("Katya", [face(1)])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [person.faces for person in store.people().items] == [80]


async def test_the_event_loop_goes_on_while_another_process_writes(store: Store, path: Path) -> None:
    thread = StoreThread()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    recording = asyncio.create_task(thread.run(store.add_faces, "Katya", []))
    await asyncio.sleep(0.05)
    assert not recording.done(), "it waits for the lock, and we do not"
    other.execute("COMMIT")
    other.close()
    assert (await recording).name == "Katya"
    with pytest.raises(NotFoundError):
        await thread.run(store.remove, "nobody")
    waiting = asyncio.create_task(thread.run(store.add_faces, "Katya", []))
    await asyncio.sleep(0)
    await thread.close()
    assert (await waiting).name == "Katya", "what was asked for is done before the end"
    with pytest.raises(StoreError):
        await thread.run(store.people)
    await thread.close()


class TestBadDisk:
    """Files on a small file system of their own; only root may mount one."""

    @pytest.fixture
    def disk(self, tmp_path: Path) -> Iterator[Disk]:
        with small_disk(tmp_path / "disk", "1m") as disk:
            yield disk

    @pytest.fixture
    def database(self, disk: Disk, clock: HandClock) -> Path:
        """With Katya, closed in order: neither a log nor shared memory is left."""
        path = disk.folder / "edge-face.db"
        store = Store(path, clock)
        store.add_faces("Katya", [face(1)])
        store.close()
        return path

    def later(self, store: Store) -> None:
        """A second later, it is tried again."""
        store._reopen_at = 0.0

    def test_a_full_disk_at_the_start(self, disk: Disk, database: Path, clock: HandClock) -> None:
        disk.fill()
        store = Store(database, clock)
        assert store.limited
        assert [person.name for person in store.gallery().persons] == ["Katya"]
        with pytest.raises(StoreError) as caught:
            store.add_faces("Zero", [face(2)] * 50)
        assert caught.value.reason == "the disk is full"
        disk.free()
        self.later(store)
        store.add_faces("Zero", [face(2)] * 50)
        assert not store.limited
        other = Store(database, clock)
        assert len(other.people().items) == 2, "nothing is locked any more"
        other.close()
        store.close()

    def test_a_read_only_disk_at_the_start(self, disk: Disk, database: Path, clock: HandClock) -> None:
        disk.remount("ro")
        with lock_for_daemon(database), pytest.raises(StoreError, match="already running"):
            lock_for_daemon(database)
        store = Store(database, clock)
        assert [person.name for person in store.gallery().persons] == ["Katya"]
        with pytest.raises(StoreError) as caught:
            store.add_faces("Zero", [])
        assert caught.value.reason == "the disk is read-only"
        disk.remount("rw")
        self.later(store)
        assert store.add_faces("Zero", []).id == "zero"
        store.close()

    def test_a_log_is_never_left_out(self, disk: Disk, clock: HandClock) -> None:
        """It may hold somebody's removal. With the shared memory file beside it, it can be read without writing."""
        path = disk.folder / "edge-face.db"
        code = (
            "import os, sys; from pathlib import Path; import numpy as np\n"
            "from edge_face.store import Store; from edge_face.clock import SystemClock\n"
            "store = Store(Path(sys.argv[1]), SystemClock()); face = [np.zeros(128, np.float32)]\n"
            "store.add_faces('Katya', face); store.add_faces('Zero', face); store.remove('katya'); "
            "store.add_faces('Ema', face); os._exit(9)"
        )
        assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 9
        disk.remount("ro")
        store = Store(path, clock)
        assert [person.name for person in store.people().items] == ["Zero", "Ema"]
        store.close()
        disk.remount("rw")
        path.with_name("edge-face.db-shm").unlink()
        disk.remount("ro")
        with pytest.raises(StoreError):
            Store(path, clock)

    def test_a_full_disk_without_any_database_is_told(self, disk: Disk, clock: HandClock) -> None:
        disk.fill()
        with pytest.raises(StoreError):
            Store(disk.folder / "edge-face.db", clock)

    def test_a_removal_counts_although_its_log_cannot_be_emptied(
        self, disk: Disk, database: Path, clock: HandClock
    ) -> None:
        store = Store(database, clock)
        secret = face(42)
        store.add_faces("Zero", [secret])
        reader = sqlite3.connect(database, isolation_level=None, timeout=0)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM people").fetchall()
        assert store.remove("zero").name == "Zero"
        reader.close()
        store.add_faces("Ema", [face(3)])
        assert secret.tobytes() not in b"".join(file.read_bytes() for file in disk.folder.iterdir())
        store.close()


def test_a_database_that_was_taken_away_is_not_made_anew(store: Store, path: Path) -> None:
    """After an error of the disk the file is opened again, never created."""
    with no_room(), pytest.raises(StoreError):
        store.add_faces("Katya", [face(1)])
    assert store.limited
    assert store.is_in_place()
    path.unlink()
    store._reopen_at = 0.0
    with pytest.raises(StoreError):
        store.add_faces("Katya", [face(1)])
    assert not path.exists()
    assert not store.is_in_place()
