"""The audit: each change has a row, and no row can be altered, taken out or cut off without being noticed."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from edge_face import audit
from edge_face.errors import StoreError
from edge_face.store import Changes, Store
from edge_face.tokens import Tokens
from tests.support import publishing
from tests.support.clock import HandClock

FACE = np.full(128, 0.1, np.float32)


@pytest.fixture
def forger(path: Path, store: Store) -> Iterator[sqlite3.Connection]:
    """Somebody who writes the file without edge-face, and so without its triggers."""
    for _ in range(20):
        store.record(publishing.event("Katya", id="x"))
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("DROP TRIGGER audit_stands")
        db.execute("DROP TRIGGER audit_stays")
        yield db


def test_everything_that_matters_has_its_row(store: Store, clock: HandClock) -> None:
    store.note_start("1.0", "[decision]\nthreshold = 0.45\n[mqtt]\npassword = ********\n")
    store.add_faces("Katya", [FACE, FACE + 1])
    number = store.audit_rows()[-1]["person"]
    store.update_person("katya", Changes(blocked=True, name="Katharina"))
    store.remove_face("katya", store.faces("katya")[0].id)
    store.record(publishing.event("Katharina", id="x", person_id="katya"))
    store.set_paused("front", True)
    store.set_paused("front", True)
    store.note_login("192.0.2.1", "admin")
    token, _ = Tokens(store, clock).new("viewer")
    Tokens(store, clock).revoke(token)
    store.remove("katya")
    store.note_start("1.0", "[decision]\nthreshold = 0.45\n[mqtt]\npassword = ********\n")
    store.note_configuration("[decision]\nthreshold = 0.6\n[mqtt]\npassword = ********\n")
    found = [{key: row[key] for key in row if key not in ("n", "at")} for row in store.audit_rows()]
    assert found == [
        {"what": "started", "version": "1.0"},
        {"what": "configured", "first": True},
        {"what": "enrolled", "person": number, "faces": 2},
        {"what": "changed", "person": number, "keys": ["blocked", "name"]},
        {"what": "face removed", "person": number, "face": 1},
        {"what": "decision", "seq": 1, "camera": "front", "status": "PASS", "reason": "match", "person": number},
        {"what": "paused", "camera": "front"},
        {"what": "login", "address": "192.0.2.1", "role": "admin"},
        {"what": "token made", "token": token, "role": "viewer"},
        {"what": "token revoked", "token": token},
        {"what": "removed", "person": number},
        {"what": "started", "version": "1.0"},
        {"what": "configured", "decision.threshold": "0.6"},
    ]
    assert store.verify_audit().problem == ""


def test_a_row_and_what_it_tells_of_come_together(store: Store) -> None:
    with store.writing() as db:
        db.execute("CREATE TEMP TRIGGER t BEFORE INSERT ON events BEGIN SELECT raise(ABORT, 'no'); END")
    with pytest.raises(StoreError):
        store.record(publishing.event("Katya", id="x"))
    assert store.audit_rows() == []


def test_who_it_was_is_shown_while_that_is_known(store: Store) -> None:
    store.add_faces("Katya", [FACE])
    store.record(publishing.event("Katya", id="x", person_id="katya"))
    assert store.audit_rows()[-1]["person_id"] == "katya"
    store.remove("katya")
    assert not any("person_id" in row for row in store.audit_rows())


def test_edge_face_itself_cannot_alter_it(store: Store) -> None:
    store.record(publishing.event("Katya", id="x"))
    for change in ("UPDATE audit SET what = 'nothing'", "DELETE FROM audit"):
        with pytest.raises(StoreError, match="append-only"), store.writing() as db:
            db.execute(change)


@pytest.mark.parametrize(
    ("forgery", "finding"),
    [
        ("UPDATE audit SET data = replace(data, 'PASS', 'REJECT') WHERE n = 7", "row 7 was altered"),
        ("UPDATE audit SET at = at + 1 WHERE n = 7", "row 7 was altered"),
        ("UPDATE audit SET what = 'x' WHERE n = 1", "row 1 was altered"),
        ("UPDATE audit SET hash = zeroblob(32) WHERE n = 20", "row 20 was altered"),
        ("DELETE FROM audit WHERE n BETWEEN 3 AND 5", "rows 3 to 5 are missing"),
        ("DELETE FROM audit WHERE n = 1", "rows 1 to 1 are missing"),
    ],
)
def test_a_forgery_is_found(store: Store, forger: sqlite3.Connection, forgery: str, finding: str) -> None:
    assert store.verify_audit() == audit.Verdict(20, audit.parse_head(store.audit_head()))
    forger.execute(forgery)
    assert store.verify_audit().problem == finding


def test_a_row_with_a_hash_of_its_own_does_not_fit_the_next(store: Store, forger: sqlite3.Connection) -> None:
    """A forger who knows how hashes are made, and does not make all of the later ones anew."""
    before, at, what = forger.execute(
        "SELECT (SELECT hash FROM audit WHERE n = 6), at, what FROM audit WHERE n = 7"
    ).fetchone()
    hash = hashlib.sha256(before + json.dumps([7, at, what, "{}"]).encode()).digest()
    forger.execute("UPDATE audit SET data = '{}', hash = ? WHERE n = 7", (hash,))
    assert store.verify_audit().problem == "row 8 was altered"


def test_a_head_of_earlier_shows_what_the_chain_alone_cannot(store: Store, forger: sqlite3.Connection) -> None:
    known = audit.parse_head(store.audit_head())
    store.record(publishing.event("Katya", id="x"))
    assert store.verify_audit(known).problem == ""
    forger.execute("DELETE FROM audit WHERE n > 15")
    assert store.verify_audit().problem == ""
    assert "cut off" in store.verify_audit(known).problem
    for _ in range(5):  # and told anew
        store.record(publishing.event("Zero", id="x"))
    assert store.verify_audit().problem == ""
    assert "another one" in store.verify_audit(known).problem


def test_the_oldest_rows_give_way_and_the_chain_goes_on(store: Store) -> None:
    with store.writing() as db:
        for number in range(3 * audit.STEP):
            audit.note(db, float(number), "x", {}, keep=audit.STEP)
    verdict = store.verify_audit()
    assert (verdict.problem, verdict.rows, verdict.head.n) == ("", audit.STEP, 3 * audit.STEP)


def test_wrong_logins_do_not_fill_the_disk(store: Store, clock: HandClock) -> None:
    for _ in range(100):
        store.note_failed_login("192.0.2.1")
    clock.now += 61
    store.note_failed_login("192.0.2.1")
    assert [row["count"] for row in store.audit_rows()] == [1, 100]


def test_it_is_whole_after_kills(path: Path, store: Store) -> None:
    """kill -9 at any moment while rows are written: none is half there, and what was acknowledged is."""
    code = (
        "import sys; from pathlib import Path\n"
        "from edge_face.store import Store; from edge_face.clock import SystemClock\n"
        "from tests.support import publishing\n"
        "store = Store(Path(sys.argv[1]), SystemClock())\n"
        "while True: print(store.record(publishing.event('Katya', id='x')).seq, flush=True)"
    )
    for delay in (0.0, 0.01, 0.03):
        child = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(delay)
        child.kill()
        told = [int(line) for line in child.stdout.read().splitlines() if line]
        child.wait()
        child.stdout.close()
        with closing(Store(path, HandClock())) as again:
            assert again.verify_audit().problem == ""
            seqs = {row["seq"] for row in again.audit_rows()}
            assert seqs == {event["seq"] for event in again.events(limit=None).items}
            assert set(told[:-1]) <= seqs  # the last line may be torn


def test_damage_by_the_disk_is_no_forgery(path: Path, store: Store, clock: HandClock) -> None:
    for _ in range(200):
        store.record(publishing.event("Katya", id="x"))
    with store.reading() as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'audit'").fetchone()
    store.close()
    content = bytearray(path.read_bytes())
    content[(page - 1) * 1024 : page * 1024] = b"\xaa" * 1024
    path.write_bytes(content)
    with closing(Store(path, clock)) as damaged, pytest.raises(StoreError) as error:
        damaged.verify_audit()
    assert error.value.reason == "the database is damaged"


def test_rows_are_json(store: Store) -> None:
    store.record(publishing.event("Katya", id="x"))
    assert json.loads(json.dumps(store.audit_rows())) == store.audit_rows()
