"""Backups: made while the database is in use, believed only when whole, and never a way back for who was removed."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from edge_face import backup
from edge_face.backups import Backups
from edge_face.database import lock_for_daemon
from edge_face.errors import BackupError, StoreError
from edge_face.restore import JUMP, recover, restore
from edge_face.store import Changes, Store, Target
from tests.support import publishing
from tests.support.clock import HandClock

NOW = 1_700_000_000.0


def face(number: float) -> np.ndarray:
    return np.full(128, number, np.float32)


@pytest.fixture
def folder(path: Path) -> Path:
    return path.with_name("backups")


@pytest.fixture
def file(path: Path, store: Store) -> Path:
    """A backup with Katya, Zero and five events."""
    store.add_faces("Katya", [face(0.1)])
    store.add_faces("Zero", [face(0.2)])
    for _ in range(5):
        store.record(publishing.event("Katya", id="x"), [Target("csv")])
    return make(path)


def make(path: Path, passphrase: str = "") -> Path:
    copy, file = path.with_suffix(".copy"), path.with_suffix(".backup")
    backup.pack(copy, file, backup.snapshot(path, copy), NOW, passphrase)
    copy.unlink()
    return file


@pytest.fixture
def again(path: Path, clock: HandClock) -> Iterator[list[Store]]:
    opened: list[Store] = []
    yield opened
    for store in opened:
        store.close()


def reopened(path: Path, clock: HandClock, again: list[Store]) -> Store:
    again.append(Store(path, clock))
    return again[-1]


def names(store: Store) -> set[str]:
    return {person.name for person in store.people().items}


@pytest.mark.parametrize("passphrase", ["", "correct horse"])
def test_what_is_restored_is_what_was_there(
    path: Path, store: Store, file: Path, clock: HandClock, again: list[Store], passphrase: str
) -> None:
    file = make(path, passphrase)
    assert (b"Katya" in file.read_bytes()) is False
    before = (store.gallery().matrix.tolist(), [event["seq"] for event in store.events().items])
    store.add_faces("Later", [face(0.3)])
    store.close()
    assert restore(file, path, NOW + 60, passphrase).created_at == NOW
    after = reopened(path, clock, again)
    assert (after.gallery().matrix.tolist(), [event["seq"] for event in after.events().items]) == before
    assert names(after) == {"Katya", "Zero"}
    assert not list(path.parent.glob(".*")), "a draft was left behind"
    assert path.stat().st_mode & 0o777 == 0o600
    assert file.stat().st_mode & 0o777 == 0o600


def test_it_is_of_one_moment_while_events_go_on(path: Path, store: Store) -> None:
    ended = threading.Event()

    def happen() -> None:
        while not ended.is_set():
            store.record(publishing.event("Katya", id="x"))

    with store.writing() as db:
        db.executemany("INSERT INTO missed VALUES (?, ?, 0, 0, ?)", ((n, n, "x" * 500) for n in range(-5000, 0)))
    store.record(publishing.event("Katya", id="x"))
    writer = threading.Thread(target=happen)
    writer.start()
    try:
        for number in range(3):
            copy = path.with_suffix(f".copy{number}")
            backup.snapshot(path, copy)
            with closing(sqlite3.connect(copy)) as db:
                seq, events, rows = db.execute(
                    "SELECT (SELECT value FROM counters WHERE name = 'seq'), (SELECT count(*) FROM events), "
                    "(SELECT count(*) FROM audit WHERE what = 'decision')"
                ).fetchone()
                assert seq == events == rows > 0
    finally:
        ended.set()
        writer.join()


def test_any_byte_that_is_wrong_is_found_and_replaces_nothing(path: Path, store: Store, file: Path) -> None:
    store.close()
    there, whole = path.read_bytes(), file.read_bytes()
    for at in [*range(0, 400, 7), *range(400, len(whole), 997), len(whole) - 1]:
        wrong = bytearray(whole)
        wrong[at] ^= 0x40
        file.write_bytes(wrong)
        with pytest.raises(BackupError):
            restore(file, path, NOW)
    for length in (0, 10, 100, len(whole) // 2, len(whole) - 33, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(BackupError):
            restore(file, path, NOW)
    file.write_bytes(whole + b"x")
    with pytest.raises(BackupError):
        restore(file, path, NOW)
    assert path.read_bytes() == there
    assert not list(path.parent.glob(".*"))


def test_a_passphrase_protects_against_reading_and_altering(path: Path, store: Store) -> None:
    """Also against somebody who computes the checksum anew, leaves blocks out, or exchanges the header."""
    store.add_faces("Katya", [face(0.1)])
    with store.writing() as db:  # several blocks
        rows = ((n, n, np.random.default_rng(n + 9000).bytes(500).hex()) for n in range(-1500, 0))
        db.executemany("INSERT INTO missed VALUES (?, ?, 0, 0, ?)", rows)
    file = make(path, "right")
    with pytest.raises(BackupError, match="passphrase is wrong"):
        restore(file, path, NOW, "wrong")
    with pytest.raises(BackupError, match="is encrypted"):
        restore(file, path, NOW)
    whole = file.read_bytes()
    start = whole.index(b"\n", len(backup.MAGIC)) + 1
    blocks, at = [], start
    while length := int.from_bytes(whole[at : at + 4], "big"):
        blocks.append(whole[at : at + 4 + length])
        at += 4 + length
    assert len(blocks) >= 3
    head = whole[:start]
    swapped = [blocks[1], blocks[0], *blocks[2:]]
    for forged in (
        head + b"".join(blocks[:-1]),
        head + b"".join(swapped),
        head.replace(b'"version":"', b'"version":"9') + b"".join(blocks),
        head + b"".join([*blocks[:-1], blocks[-1][:-1] + bytes([blocks[-1][-1] ^ 1])]),
    ):
        forged += bytes(4)
        file.write_bytes(forged + hashlib.sha256(forged).digest())
        with pytest.raises(BackupError, match="altered"):
            restore(file, path, NOW, "right")


def test_removals_and_blocks_since_hold(
    path: Path, store: Store, file: Path, clock: HandClock, again: list[Store]
) -> None:
    store.remove("katya")
    store.update_person("zero", Changes(blocked=True))
    store.close()
    restore(file, path, NOW)
    after = reopened(path, clock, again)
    assert [(person.name, person.blocked) for person in after.people().items] == [("Zero", True)]
    assert {event["name"] for event in after.events().items} == {None}
    assert after.add_faces("Katya", []).id != "katya"


def test_numbers_go_on_nothing_is_sent_again_and_the_audit_is_whole(
    path: Path, store: Store, file: Path, clock: HandClock, again: list[Store]
) -> None:
    assert store.pending("csv") is not None
    for _ in range(3):
        store.record(publishing.event("Katya", id="x"))
    store.close()
    restore(file, path, NOW)
    after = reopened(path, clock, again)
    assert after.pending("csv") is None
    assert [(note.first_seq, note.last_seq) for note in after.missed()] == [(6, 8)]
    assert after.record(publishing.event("Katya", id="x")).seq == 9
    assert after.verify_audit().problem == ""
    decided = [row["seq"] for row in after.audit_rows() if row["what"] == "decision"]
    assert decided == list(range(1, 10)), "the restore hides what was decided since the backup"
    assert after.add_faces("New", []).id == "new"


def test_ids_of_people_since_are_given_to_nobody_else(
    path: Path, store: Store, file: Path, again: list[Store], clock: HandClock
) -> None:
    """Other systems know them by these, and may open for them."""
    store.add_faces("Mia", [face(0.3)])
    store.remove("mia")
    store.add_faces("Zoe", [face(0.4)])
    store.close()
    restore(file, path, NOW)
    again.append(Store(path, clock))
    assert [again[0].add_faces(name, []).id for name in ("Mia", "Zoe", "Ada")] == ["mia-2", "zoe-2", "ada"]
    assert {person.id for person in again[0].people().items} == {"katya", "zero", "mia-2", "zoe-2", "ada"}
    assert again[0].bar(publishing.event("Katya")) is None


def test_on_another_card_numbers_that_may_have_been_given_are_left_out(
    tmp_path: Path, file: Path, clock: HandClock, again: list[Store]
) -> None:
    new = tmp_path / "new.db"
    restore(file, new, NOW)
    after = reopened(new, clock, again)
    assert after.record(publishing.event("Katya", id="x")).seq == 5 + JUMP + 1
    assert after.verify_audit().problem == ""


def test_a_running_daemon_keeps_its_database(path: Path, store: Store) -> None:
    """The command asks for the daemon's lock (test_data_care.py has the command itself)."""
    with lock_for_daemon(path), pytest.raises(StoreError, match="already running"):
        lock_for_daemon(path)


def test_the_lock_is_of_the_file_that_is_there_now(path: Path, store: Store, file: Path) -> None:
    store.close()
    with lock_for_daemon(path):
        restore(file, path, NOW)
        with lock_for_daemon(path), pytest.raises(StoreError, match="already running"):
            lock_for_daemon(path)


def test_a_damaged_database_makes_no_backup(path: Path, store: Store, folder: Path) -> None:
    damage(path, store)
    with pytest.raises(BackupError):
        Backups(path, folder).make(NOW)
    assert Backups(path, folder).files() == []


def damage(path: Path, store: Store) -> None:
    """A card that returns other bytes than were written."""
    for number in range(50):
        store.add_faces(f"Person {number}", [face(0.5)])
    store.close()
    content = bytearray(path.read_bytes())
    content[4096 * 5 : 4096 * 12] = b"\xaa" * 4096 * 7
    path.write_bytes(content)


def no_file(path: Path, store: Store) -> None:
    store.close()
    path.unlink()


def empty(path: Path, store: Store) -> None:
    store.close()
    path.write_bytes(b"")


def zeros(path: Path, store: Store) -> None:
    store.close()
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("harm", [damage, no_file, empty, zeros])
def test_the_last_good_backup_takes_the_place_of_a_damaged_database(
    path: Path, store: Store, folder: Path, clock: HandClock, again: list[Store], harm: object
) -> None:
    made = Backups(path, folder)
    store.add_faces("Katya", [face(0.1)])
    made.make(NOW)
    store.add_faces("Zero", [face(0.2)])
    good = made.make(NOW + 1)
    bad = made.make(NOW + 2)
    bad.write_bytes(bad.read_bytes()[:-100])
    store.remove("katya")
    harm(path, store)  # type: ignore[operator]
    with lock_for_daemon(path):
        restored = recover(path, folder, NOW)
    assert restored is not None
    assert restored.backup == str(good)
    assert names(reopened(path, clock, again)) == {"Zero"}, "who was removed is back"
    assert path.with_name(path.name + ".damaged").exists()
    with lock_for_daemon(path):
        assert recover(path, folder, NOW) is None


def test_without_a_good_backup_it_stops_and_touches_nothing(path: Path, store: Store, folder: Path) -> None:
    damage(path, store)
    there = path.read_bytes()
    with pytest.raises(StoreError, match="no good backup"):
        recover(path, folder, NOW)
    with pytest.raises(StoreError, match="no good backup"):
        recover(path, None, NOW)
    assert path.read_bytes() == there


def test_a_sound_or_new_database_is_left_alone(path: Path, store: Store, folder: Path, tmp_path: Path) -> None:
    assert recover(path, folder, NOW) is None
    assert recover(tmp_path / "none.db", folder, NOW) is None
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as db:
        db.execute("CREATE TABLE theirs (x)")
    Backups(other, folder).files()
    assert recover(other, folder, NOW) is None  # it is refused afterwards, as another program's


def test_a_weeks_backups_are_kept(path: Path, store: Store, folder: Path) -> None:
    kept = [Backups(path, folder).make(NOW + day).name for day in range(9)]
    assert [file.name for file in Backups(path, folder).files()] == kept[:1:-1]
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_backup_takes_no_room_that_events_need(
    path: Path, store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: shutil._ntuple_diskusage(1, 1, 64 << 20))
    with pytest.raises(BackupError, match="no room"):
        Backups(path, folder).make(NOW)


def test_who_is_removed_leaves_the_backups_too(path: Path, store: Store, folder: Path) -> None:
    made = Backups(path, folder)
    store.add_faces("Katya", [face(0.123)], external_id="ext-4711", thumbnails=[b"\xff\xd8 her picture"])
    store.add_faces("Zero", [face(0.2)])
    store.record(publishing.event("Katya", id="x", person_id="katya"))
    one, two = made.make(NOW), made.make(NOW + 1)
    torn = made.make(NOW + 2)
    torn.write_bytes(torn.read_bytes()[:-1])
    store.update_person("zero", Changes(blocked=True))
    assert made.scrub() == 0, "a block erases nothing"
    made.make(NOW + 3)
    aside = path.with_name(path.name + ".damaged")
    aside.write_bytes(b"katya")
    store.remove("katya")
    assert made.scrub() == 3
    assert not torn.exists(), "nobody could erase anything from it, nor restore it"
    assert not aside.exists()
    for file in made.files():
        copy = folder / "copy"
        backup.unpack(file, copy)
        content = copy.read_bytes().lower()
        copy.unlink()
        for trace in (b"katya", b"ext-4711", face(0.123).tobytes()[:64], b"her picture"):
            assert trace not in content, f"{trace!r} in {file.name}"
        assert b"zero" in content
    assert made.files()[-1] == one
    assert two in made.files()
    assert made.scrub() == 0


def test_a_process_that_was_killed_leaves_nothing(path: Path, store: Store, folder: Path) -> None:
    made = Backups(path, folder)
    made.make(NOW)
    for left in (f".{path.name}-000002.backup.ab", ".copy-ab", ".copy-ab-journal"):
        (folder / left).write_bytes(b"katya")
    made.scrub()
    assert [file.name for file in folder.iterdir()] == [file.name for file in made.files()]


def test_the_same_as_a_process_of_lowest_priority(path: Path, store: Store, folder: Path) -> None:
    command = [sys.executable, "-m", "edge_face.backups", "make", str(path), str(folder)]
    assert subprocess.run(command, check=False).returncode == 0
    assert len(Backups(path, folder).files()) == 1
    failed = subprocess.run([*command[:4], "none.db", str(folder)], capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "none.db" in failed.stderr
