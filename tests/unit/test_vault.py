"""Templates and pictures encrypted at rest: what a thief finds, what a forger can do, and what a wrong key does."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from edge_face import backup
from edge_face.backups import Backups
from edge_face.blobs import to_blob
from edge_face.errors import BackupError, StoreError, TemplateKeyError
from edge_face.ledger import Entry, Ledger, old_face_key
from edge_face.restore import recover, restore
from edge_face.store import Store
from edge_face.vault import KEY_BYTES, Vault, new_key, parse_key
from edge_face.visitors import SeenVisit
from tests.support.clock import HandClock
from tests.support.daemon import edge_face, write_config

KEY, OTHER = new_key(), new_key()
NOW = 1_700_000_000.0
KATYA, ZERO, STRANGER = (np.random.default_rng(seed).normal(0, 0.1, 128).astype(np.float32) for seed in range(3))
PICTURE, STRANGERS = b"\xff\xd8 a picture of Katya", b"\xff\xd8 a picture of a stranger"
SECRETS = {
    "Katya's template": to_blob(KATYA),
    "Zero's template": to_blob(ZERO),
    "the stranger's template": to_blob(STRANGER),
    "Katya's picture": PICTURE,
    "the stranger's picture": STRANGERS,
}


@pytest.fixture
def opened(path: Path, clock: HandClock) -> Iterator[Callable[..., Store]]:
    stores: list[Store] = []

    def open_with(key: str = KEY) -> Store:
        stores.append(Store(path, clock, template_key=key))
        return stores[-1]

    yield open_with
    for store in stores:
        store.close()


def fill(store: Store) -> None:
    store.add_faces("Katya", [KATYA], thumbnails=[PICTURE])
    store.add_faces("Zero", [ZERO])
    store.note_visitor("0190-a", SeenVisit("front", NOW, 1.0, True, [STRANGER], 0.9, STRANGERS))


def readable(path: Path) -> set[str]:
    """What of the secrets stands somewhere in the database's files, or, unpacked, in a backup."""
    found = set()
    for file in [each for each in path.parent.rglob("*") if each.is_file()]:
        contents = [file.read_bytes()]
        if file.suffix == ".backup":
            copy = path.with_name("unpacked")
            backup.unpack(file, copy)
            contents.append(copy.read_bytes())
            copy.unlink()
        found |= {name for name, secret in SECRETS.items() if any(secret in content for content in contents)}
    return found


def faces(store: Store) -> dict[str, list[float]]:
    rows = store.gallery()
    return {rows.persons[owner].name: row.tolist() for owner, row in zip(rows.owners, rows.matrix, strict=True)}


WHOLE = {"Katya": KATYA.tolist(), "Zero": ZERO.tolist()}


def is_whole(store: Store) -> bool:
    (visitor,) = store.visitor_templates()
    return (
        faces(store) == WHOLE
        and store.thumbnail("katya", store.faces("katya")[0].id) == PICTURE
        and visitor[1].tolist() == [STRANGER.tolist()]
        and np.array_equal(store.visitor_faces("0190-a"), [STRANGER])
        and store.visitor_picture("0190-a") == STRANGERS
    )


def test_with_a_key_no_face_can_be_read_from_any_file(path: Path, opened: Callable[..., Store]) -> None:
    store = opened()
    fill(store)
    assert is_whole(store)
    Backups(path, path.with_name("backups")).make(NOW)
    assert path.with_name(path.name + "-wal").stat().st_size, "there is no log to look into"
    assert readable(path) == set()
    store.close()
    assert readable(path) == set()
    again = opened()
    assert is_whole(again)
    assert again.unreadable == 0


def test_the_search_would_find_them(path: Path, opened: Callable[..., Store]) -> None:
    fill(opened(""))
    assert readable(path) == set(SECRETS)


def config_of(path: Path, **storage: str) -> Path:
    return write_config(path.parent, {"storage": {"path": path, **storage}})


def test_what_was_there_is_encrypted_and_nothing_readable_is_left(path: Path, opened: Callable[..., Store]) -> None:
    backups = Backups(path, path.with_name(path.name + ".backups"))
    store = opened("")
    fill(store)
    backups.make(NOW)
    store.remove_face("zero", store.faces("zero")[0].id)  # what was deleted may be left somewhere, too
    store.add_faces("Zero", [ZERO])
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA secure_delete = OFF")  # another program, or an old version
        insert = "INSERT INTO templates (person_id, encoding, created_at) VALUES ('zero', ?, 0)"
        db.executemany(insert, [(to_blob(STRANGER),)] * 20)
        db.execute("DELETE FROM templates WHERE created_at = 0")
    backups.make(NOW)
    for left in (f"{path.name}.damaged", f".{path.name}.copy-1a2b", f".{path.name}.restore-1a2b"):
        shutil.copy(path, path.with_name(left))
    store.close()
    config = config_of(path, template_key=KEY)
    assert readable(path) == set(SECRETS)
    done = edge_face("templates", "--encrypt", config=config)
    assert done.returncode == 0, done.stderr
    assert Vault(KEY).mark.hex() in done.stdout
    assert readable(path) == set()
    assert is_whole(opened())
    shown = edge_face("templates", config=config)
    assert (shown.returncode, "people: 2, faces: 2" in shown.stdout) == (0, True)
    assert edge_face("audit", "--verify", config=config).returncode == 0

    assert edge_face("templates", "--encrypt", config=config).returncode == 0  # to do it twice does no harm
    config = config_of(path, template_key=OTHER, old_template_key=KEY)
    # It was cut off in the middle: the database has the new key, of its backups none.
    with closing(Store(path, HandClock(), template_key=OTHER)) as half:
        half.change_key(Vault(KEY))
    for _ in range(2):
        done = edge_face("templates", "--rekey", config=config)
        assert done.returncode == 0, done.stderr
    assert is_whole(opened(OTHER))
    with pytest.raises(TemplateKeyError):
        opened(KEY).gallery()
    for file in backups.files():
        restore(file, path, NOW, vault=Vault(OTHER))
        with closing(Store(path, HandClock(), template_key=OTHER)) as restored:
            assert faces(restored)["Katya"] == WHOLE["Katya"]

    assert edge_face("templates", "--decrypt", config=config).returncode == 0
    assert "not encrypted; people: " in edge_face("templates", config=config_of(path)).stdout
    assert "Katya's template" in readable(path)
    assert faces(opened(""))["Katya"] == WHOLE["Katya"]


def test_a_command_that_cannot_do_it_says_so_and_changes_nothing(path: Path, opened: Callable[..., Store]) -> None:
    fill(opened())
    opened().scrub_log()
    for option, storage, said in (
        ("--encrypt", {"template_key": OTHER}, f"encrypted with the key {Vault(KEY).mark.hex()}"),
        ("--rekey", {"template_key": OTHER}, "[storage] old_template_key: it is needed"),
        ("--rekey", {"template_key": new_key(), "old_template_key": OTHER}, "and not with the key"),
        ("--encrypt", {"template_key": "short"}, "[storage] template_key: expected 32 bytes in base64"),
    ):
        done = edge_face("templates", option, config=config_of(path, **storage))
        assert (done.returncode, said in done.stderr) == (1, True), done.stderr
        assert "short" not in done.stderr
    assert is_whole(opened())


FORGERIES = {
    "two faces change places": "CREATE TEMP TABLE was AS SELECT * FROM templates; UPDATE templates SET "
    "(encoding, seal) = (SELECT encoding, seal FROM was WHERE was.id = 3 - templates.id) WHERE id < 3",
    "two faces change owners": "UPDATE templates SET person_id = iif(id = 1, 'zero', 'katya') WHERE id < 3",
    "two people change ids": "UPDATE people SET id = 'x' WHERE id = 'zero'; "
    "UPDATE people SET id = 'zero' WHERE id = 'katya'; UPDATE people SET id = 'katya' WHERE id = 'x'",
    "two faces have other dates": "UPDATE templates SET created_at = created_at + 1 WHERE id < 3",
    "two faces have other numbers": "UPDATE templates SET id = 10 + id WHERE id < 3",
    "two people were enrolled at another time": "UPDATE people SET created_at = created_at + 1 WHERE number < 3",
    "other bytes": "UPDATE templates SET encoding = randomblob(512) WHERE id < 3",
    "another seal": "UPDATE templates SET seal = randomblob(28) WHERE id < 3",
    "no seal": "UPDATE templates SET seal = x'' WHERE id < 3",
}


@pytest.mark.parametrize("forged", FORGERIES.values(), ids=FORGERIES)
def test_whoever_can_write_the_file_gives_nobody_another_s_face(
    path: Path, opened: Callable[..., Store], clock: HandClock, forged: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened()
    store.add_faces("Katya", [KATYA])
    clock.date += 1
    store.add_faces("Zero", [ZERO])
    store.add_faces("Eve", [STRANGER])
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript(forged)
    assert faces(store) == {"Eve": STRANGER.tolist()}
    assert store.unreadable == 2
    assert "of Katya is left out" in caplog.text


def test_a_face_that_nobody_encrypted_is_not_believed(path: Path, opened: Callable[..., Store]) -> None:
    fill(opened())
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        slipped = "INSERT INTO templates (person_id, encoding, created_at) VALUES ('katya', ?, 0)"
        db.execute(slipped, (to_blob(STRANGER),))
        db.execute("UPDATE unknowns SET encodings = ?, seal = NULL", (to_blob(KATYA),))
    store = opened()
    assert faces(store) == WHOLE
    assert store.unreadable == 1
    assert store.visitor_templates() == []
    with pytest.raises(StoreError, match="not encrypted"):
        store.visitor_faces("0190-a")


def test_nor_is_a_whole_database(path: Path, opened: Callable[..., Store]) -> None:
    fill(opened(""))
    for use in (opened().gallery, lambda: opened().add_faces("Eve", [STRANGER]), opened().check_key):
        with pytest.raises(TemplateKeyError, match="templates --encrypt"):
            use()


@pytest.mark.parametrize(
    ("key", "said"), [("", "template_key is empty"), (OTHER, "template_key is another")], ids=["missing", "wrong"]
)
def test_with_a_missing_or_wrong_key_nothing_is_read_or_overwritten(
    path: Path, opened: Callable[..., Store], key: str, said: str
) -> None:
    fill(opened())
    store = opened(key)
    before = len(opened().audit_rows())
    for use in (
        store.check_key,
        store.gallery,
        lambda: store.add_faces("Katya", [STRANGER]),
        lambda: store.add_faces_to("katya", [STRANGER]),
        lambda: fill(store),
        lambda: store.note_visitor("0190-b", SeenVisit("front", NOW, 1.0, True, [STRANGER], 1, STRANGERS)),
    ):
        with pytest.raises(TemplateKeyError, match=said):
            use()
    for picture in (lambda: store.thumbnail("katya", 1), lambda: store.visitor_picture("0190-a")):
        with pytest.raises(StoreError, match="cannot be read"):
            picture()
    assert is_whole(opened())
    assert len(opened().audit_rows()) == before
    store.remove("katya")  # who wants to be erased need not wait until somebody has found the key
    assert faces(opened()) == {"Zero": WHOLE["Zero"]}


def made(path: Path) -> Path:
    copy, file = path.with_suffix(".copy"), path.with_suffix(".backup")
    backup.pack(copy, file, backup.snapshot(path, copy), NOW)
    copy.unlink()
    return file


def test_a_restore_needs_the_same_key_and_encrypts_what_was_not(path: Path, opened: Callable[..., Store]) -> None:
    fill(opened())
    file = made(path)
    opened().close()
    there = path.read_bytes()
    for key in ("", OTHER):
        with pytest.raises(TemplateKeyError):
            restore(file, path, NOW, vault=Vault(key))
        assert path.read_bytes() == there
    restore(file, path, NOW, vault=Vault(KEY))
    assert is_whole(opened())
    done = edge_face("restore", file, config=config_of(path, template_key=KEY))
    assert done.returncode == 0, done.stderr


def test_an_older_backup_is_encrypted_when_it_is_restored(path: Path, opened: Callable[..., Store]) -> None:
    store = opened("")
    fill(store)
    store.close()
    file = made(path)
    restore(file, path, NOW, vault=Vault(KEY))
    file.unlink()
    assert readable(path) == set()
    assert is_whole(opened())


def test_a_damaged_database_is_replaced_by_an_encrypted_backup_only(path: Path, opened: Callable[..., Store]) -> None:
    folder = path.with_name("backups")
    fill(opened())
    backups = Backups(path, folder)
    good = backups.make(NOW)
    opened().close()
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()
    with closing(Store(path, HandClock())) as plain:
        plain.add_faces("Eve", [STRANGER])
    slipped = backups.make(NOW)
    assert backups.files() == [slipped, good]
    for file in path.parent.glob(f"{path.name}-*"):
        file.unlink()
    path.write_bytes(b"")
    restored = recover(path, folder, NOW, Vault(KEY))
    assert restored
    assert restored.backup == str(good)
    assert is_whole(opened())


def test_an_erased_face_stays_so_whatever_the_key_was(path: Path, opened: Callable[..., Store]) -> None:
    store = opened("")
    fill(store)
    file = made(path)
    store.change_key(Vault())
    store.close()
    encrypted = opened()
    encrypted.change_key(Vault())
    encrypted.remove_face("katya", encrypted.faces("katya")[0].id)
    restore(file, path, NOW, vault=Vault(KEY))
    assert faces(opened()) == {"Zero": WHOLE["Zero"]}
    # The same photo enrolled anew is another face.
    opened().add_faces("Katya", [KATYA])
    assert opened().apply_ledger() == 0
    assert faces(opened()) == WHOLE


def test_a_ledger_of_older_versions_still_holds(path: Path, opened: Callable[..., Store]) -> None:
    fill(opened(""))
    Ledger(path).write(Entry("face", old_face_key(to_blob(KATYA))))
    assert opened("").apply_ledger() == 1
    assert faces(opened("")) == {"Zero": WHOLE["Zero"]}


def test_three_thousand_faces_are_there_within_a_second(path: Path, opened: Callable[..., Store]) -> None:
    store = opened()
    random = np.random.default_rng(0).normal(0, 0.1, (3000, 128)).astype(np.float32)
    with store.writing() as db:
        for number in range(1000):
            db.execute(
                "INSERT INTO people (id, name, created_at) VALUES (?, ?, 0)", (f"p{number:04}", f"P {number:04}")
            )
            blobs = [to_blob(face) for face in random[3 * number : 3 * number + 3]]
            store._insert_faces(db, f"p{number:04}", blobs, (), NOW)
    begin = time.thread_time()
    rows = store.gallery()
    assert time.thread_time() - begin < 1
    assert np.array_equal(rows.matrix, random)


def test_a_key_is_32_bytes_in_base64() -> None:
    assert len(parse_key(new_key())) == KEY_BYTES
    assert parse_key("") == b""
    for bad in ("YWJj", "not base64!", new_key()[:-2]):
        with pytest.raises(ValueError, match="expected 32 bytes"):
            parse_key(bad)
    assert edge_face("templates", "--new-key").stdout.strip() != new_key()


def test_a_backup_with_a_passphrase_still_needs_the_key(path: Path, opened: Callable[..., Store]) -> None:
    fill(opened())
    copy, file = path.with_suffix(".copy"), path.with_suffix(".backup")
    backup.pack(copy, file, backup.snapshot(path, copy), NOW, "correct horse")
    with pytest.raises(BackupError):
        restore(file, path, NOW, vault=Vault(KEY))
    with pytest.raises(TemplateKeyError):
        restore(file, path, NOW, "correct horse")
    opened().close()
    restore(file, path, NOW, "correct horse", vault=Vault(KEY))
    assert is_whole(opened())


def test_it_is_in_no_log_while_others_have_the_file_open(path: Path, opened: Callable[..., Store]) -> None:
    plain, store = opened(""), opened()
    fill(plain)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM people").fetchall()
        with pytest.raises(StoreError, match="another program is reading"):
            store.change_key(Vault())
        assert readable(path) == set(SECRETS)
    store.change_key(Vault())
    assert readable(path) == set()
    with pytest.raises(TemplateKeyError):
        plain.add_faces("Eve", [STRANGER])
