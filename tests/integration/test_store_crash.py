"""Kill -9 in the middle of writing: what was acknowledged is there, and the numbers go on without a gap."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edge_face import pages
from edge_face.clock import SystemClock
from edge_face.store import Store

CHILD = """
import sys
from pathlib import Path
import numpy as np
from edge_face.clock import SystemClock
from edge_face.events import Event
from edge_face.store import Store, Target

store = Store(Path(sys.argv[1]), SystemClock())
print("ready", flush=True)
for number in range(1_000_000):
    name = f"{sys.argv[2]} {number}"
    person = store.add_faces(name, [np.full(128, number, np.float32)] * 2)
    print("person", person.id, flush=True)
    event = Event(type="face_event", id="x", seq=0, node="n", camera="c", status="PASS", reason="match", name=name,
                  person_id=person.id, external_id=None, distance=0.1, threshold=0.45, margin=None, score=None,
                  rule="distance", box=(0, 0, 1, 1), track=1, frames=1, timestamp=float(number), expires_at=number + 5,
                  latency_ms=1.0)
    print("event", store.record(event, [Target("mqtt", 1e12), Target("csv")]).seq, flush=True)
    if number % 3 == 2:
        print("removed", store.remove(person.id).id, flush=True)
"""


def run_and_kill(path: Path, label: str, seconds: float) -> list[tuple[str, str]]:
    """Everything that the child acknowledged before it was killed."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path), label], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    threading.Timer(seconds, child.kill).start()
    # A last line without its end was cut off by the kill: nothing was acknowledged.
    lines = [line.split() for line in child.stdout if line.endswith("\n")]
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()
    return [(what, which) for what, which in lines]


@pytest.mark.timeout(60)
def test_a_killed_daemon_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    path, clock = tmp_path / "edge-face.db", SystemClock()
    chance = random.Random(7)
    people: set[str] = set()
    removed: set[str] = set()
    seqs: list[int] = []
    for life in range(6):
        told = run_and_kill(path, f"life{life}", chance.uniform(0.05, 0.4))
        people |= {which for what, which in told if what == "person"}
        removed |= {which for what, which in told if what == "removed"}
        seqs += [int(which) for what, which in told if what == "event"]

        started = time.monotonic()
        store = Store(path, clock)
        assert time.monotonic() - started < 2, "it starts again without a repair"
        store.check()
        present = {person.id for person in store.people().items}
        missing = people - removed - present
        assert missing <= _last_person(told), "an acknowledged person is missing"
        removed |= missing
        assert not removed & present, "who was removed stays so"
        assert all(person.faces == 2 for person in store.people().items), "a person is whole or not there"
        told_of = list(pages.each(store.events, newest_first=False))
        stored = [item["seq"] for item in told_of]
        assert stored == list(range(1, len(stored) + 1)), "numbers without gap or repeat"
        assert set(seqs) <= set(stored), "an acknowledged event is missing"
        live = sum(item["person_id"] in present for item in told_of)
        waiting = {"mqtt": live, "csv": len(stored)}
        assert {name: backlog.count for name, backlog in store.backlog().items()} == {
            name: count for name, count in waiting.items() if count
        }, "all deliveries wait, but for live ones of people who were removed"
        rows = store.gallery()
        assert rows.matrix.shape == (2 * len(present), 128)
        assert np.isfinite(rows.matrix).all()
        store.close()
    assert len(seqs) == len(set(seqs)) > 20, "the children did some work"


def _last_person(told: list[tuple[str, str]]) -> set[str]:
    """The last one added may be removed already, if the kill fell between the removal and its acknowledgement."""
    return {which for what, which in told[-2:] if what == "person"}
