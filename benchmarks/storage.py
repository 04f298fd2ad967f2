"""How many bytes an event costs a memory card, from its decision until every target has it.

usage: python benchmarks/storage.py [--events N] [--json] [FOLDER]

    FOLDER    on the disk to be measured (default: the temporary folder, which must not be in memory)
    --events  how many (default 500)

Events come one by one, each committed before it is delivered, as at a gate: to a live target, and to a live one and one
with history. `written` is what the kernel was given to write (write_bytes of /proc/self/io), `kept` by how much the
database has grown after its log was folded in.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from edge_face.bench.stages import an_event
from edge_face.clock import SystemClock
from edge_face.outbox import Target
from edge_face.store import Store

TARGETS = {"no target": (), "1 target": ("mqtt",), "2 targets": ("mqtt", "csv")}


@dataclass(frozen=True, slots=True)
class Row:
    targets: str
    events: int
    written_bytes: float
    """Of one event, as is the next."""
    kept_bytes: float
    p50_ms: float
    """From the decision until it is on the disk and every delivery has been noted."""
    p95_ms: float


def written() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))


def measure(folder: Path, name: str, count: int) -> Row:
    clock = SystemClock()
    path = folder / f"{name.replace(' ', '-')}.db"
    store = Store(path, clock)
    targets = [Target(target, clock.monotonic() + 3600 if target == "mqtt" else None) for target in TARGETS[name]]
    took = []

    def happen(number: int) -> None:
        begin = time.perf_counter()
        event = store.record(an_event(clock, number), targets)
        for target in targets:
            store.done(target.name, event.seq)
        took.append((time.perf_counter() - begin) * 1000)

    for number in range(50):  # the tables' first pages
        happen(number)
    took.clear()
    size, before = path.stat().st_size, written()
    for number in range(count):
        happen(number)
    store.close()
    p50, p95 = statistics.quantiles(took, n=20)[9], statistics.quantiles(took, n=20)[18]
    return Row(name, count, (written() - before) / count, (path.stat().st_size - size) / count, p50, p95)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--events", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        rows = [measure(Path(folder), name, args.events) for name in TARGETS]
    if args.json:
        print(json.dumps({"rows": [asdict(row) for row in rows]}))
        return
    print(f"{'':<12}{'written, bytes':>16}{'kept, bytes':>14}{'p50 ms':>10}{'p95 ms':>10}")
    for row in rows:
        print(
            f"{row.targets:<12}{row.written_bytes:>16.0f}{row.kept_bytes:>14.0f}{row.p50_ms:>10.2f}{row.p95_ms:>10.2f}"
        )


if __name__ == "__main__":
    main()
