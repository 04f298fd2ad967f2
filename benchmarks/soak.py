"""A long run of the real daemon with everything happening at once: is it still the same at the end, and always right?

usage: python benchmarks/soak.py [--minutes N] [--json | --markdown]

    --minutes   how long (default 10); the first three tenths, at most 10 minutes, are warm-up

Three cameras (two clips in a loop, one MJPEG stream) show two real people, who cross and come alone. Meanwhile people
are enrolled and removed in each of the ways there are, every GET route is asked, good and bad photos are uploaded,
viewers of the stream come, go, hang up or read nothing, the stream's server and the broker (Mosquitto) go away and
return. Events arrive at a real subscriber and a real webhook's receiver.

A process grows when the median of its last third is above that of its first third after the warm-up. For memory both
PSS and RSS have to be: PSS also rises when somebody else's Python ends, and no longer shares the libraries' pages. The
process that reads photos comes and goes; it is only listed.

Exit code 1 when anything grew by 2 % or more, or was wrong; the reasons are printed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import math
import re
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support.broker import Broker, arriving
from tests.support.daemon import Daemon, edge_face, events, write_config
from tests.support.load import EILEEN, RESIDENT, Load, Record, receiving
from tests.support.processes import Usage, children, usage
from tests.support.streams import StreamServer, busy_gate, write_clip

SAMPLE_S = 2.0
WARM_UP_PART, LONGEST_WARM_UP_S = 0.4, 600.0
MOST_GROWTH = 0.02
MAX_AGE_S, EVENT_TTL_S = 1.0, 5.0
DELIVERY_S = 1.0
"""What a removal takes to reach all that is under way, and the clocks' and the loaded machine's tolerance."""
CLIP_SHIFT = 110
EXPECTED = (
    "the connection to the broker",
    "cannot be reached",
    "camera stream is lost",
    "events expire before they can be delivered",
    "closed the connection at once",
    "no answer before the event expired",
)
"""Warnings that what is done to the daemon must lead to. Errors none."""


@dataclass(frozen=True, slots=True)
class Row:
    """One process, early (the first third after the warm-up) and late (the last third); medians."""

    process: str
    pss_mib: tuple[float, float]
    rss_mib: tuple[float, float]
    descriptors: tuple[float, float]
    threads: tuple[float, float]
    cpu_percent: float
    """Of one core."""

    @property
    def growth(self) -> float:
        """Of memory, as a part of the early PSS."""
        more = min(late - early for early, late in (self.pss_mib, self.rss_mib))
        return more / self.pss_mib[0]

    def problems(self) -> list[str]:
        found = []
        if self.growth >= MOST_GROWTH:
            found.append(f"{self.process}: memory grew by {self.growth:.1%}")
        # One more or less is no leak: connections come and go, and asyncio's pool of six threads is filled as needed.
        for what, (early, late) in (("descriptors", self.descriptors), ("threads", self.threads)):
            if late - early > 1:
                found.append(f"{self.process}: {what} grew from {early:g} to {late:g}")
        return found


class Sampler:
    """Reads the daemon's processes every SAMPLE_S."""

    def __init__(self, parent: int) -> None:
        self._parent = parent
        cameras = children(parent)  # before the first photo there are no others
        self._names = {parent: "parent"} | {pid: f"camera {at}" for at, pid in enumerate(cameras, 1)}
        self.samples: list[tuple[float, dict[str, Usage]]] = []
        self.photo_pids: set[int] = set()
        self.photo_peak_mib = 0.0
        self.problems: list[str] = []

    async def run(self) -> None:
        while True:
            found = {name: used for pid, name in self._names.items() if (used := usage(pid))}
            self.samples.append((time.monotonic(), found))
            for pid in children(self._parent):
                if pid not in self._names and (used := usage(pid)):
                    self.photo_pids.add(pid)
                    self.photo_peak_mib = max(self.photo_peak_mib, used.pss_mib)
            await asyncio.sleep(SAMPLE_S)

    def rows(self, warm_up_s: float) -> list[Row]:
        begin = self.samples[0][0]
        warm = [sample for sample in self.samples if sample[0] - begin >= warm_up_s]
        third = len(warm) // 3
        first, last = warm[:third], warm[-third:]
        rows = []
        for name in self._names.values():
            if any(name not in found for _, found in warm):
                self.problems.append(f"{name} ended, or was started again")
                continue
            (began, before), (ended, after) = warm[0], warm[-1]
            cpu = (after[name].cpu_s - before[name].cpu_s) / (ended - began) * 100
            pss, rss, descriptors, threads = (_medians(first, last, name, key) for key in _COLUMNS)
            rows.append(Row(name, pss, rss, descriptors, threads, cpu))
        return rows


_COLUMNS = ("pss_mib", "rss_mib", "descriptors", "threads")


def _medians(first: Sequence[Any], last: Sequence[Any], name: str, key: str) -> tuple[float, float]:
    early, late = ([getattr(found[name], key) for _, found in part] for part in (first, last))
    return statistics.median(early), statistics.median(late)


@dataclass(frozen=True, slots=True)
class Report:
    minutes: float
    warm_up_s: float
    rows: list[Row]
    figures: dict[str, float]
    problems: list[str]


async def run(folder: Path, minutes: float) -> Report:
    frames = busy_gate()
    stream, broker = StreamServer(frames), Broker(folder).start()
    record = Record()
    async with arriving(broker) as record.mqtt, receiving(record.webhook) as hook:
        config = write_config(
            folder,
            {
                "camera": {"loop": "true"},
                "camera:front": {"source": write_clip(folder / "front.avi", frames)},
                "camera:back": {"source": write_clip(folder / "back.avi", busy_gate(CLIP_SHIFT))},
                "camera:stream": {"source": stream.url},
                "engine": {"threads": 1},
                "decision": {"cooldown": 2, "presence_timeout": 2, "max_age": MAX_AGE_S, "event_ttl": EVENT_TTL_S},
                "mqtt": {"host": "127.0.0.1", "port": broker.port},
                "webhook": {"url": hook, "events": "PASS, REJECT"},
            },
        )
        (folder / "eileen.jpg").write_bytes(EILEEN)
        edge_face("enroll", RESIDENT, folder / "eileen.jpg", config=config)
        try:
            with Daemon(config) as daemon:
                await asyncio.to_thread(daemon.wait_for, "ok")
                await asyncio.to_thread(lambda: daemon.auth)  # a command: it must not hold up the receiver
                return await _watched(daemon, Load(daemon, broker, stream, record), minutes)
        finally:
            stream.stop()
            broker.stop()


async def _watched(daemon: Daemon, load: Load, minutes: float) -> Report:
    assert daemon.process is not None
    sampler = Sampler(daemon.process.pid)
    sampling = asyncio.create_task(sampler.run())
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(minutes * 60):
            await load.run()
    sampling.cancel()
    status = await asyncio.to_thread(lambda: daemon.get("/api/v1/status").json())
    code, took_s = await asyncio.to_thread(daemon.end, signal.SIGINT)
    warm_up_s = min(minutes * 60 * WARM_UP_PART, LONGEST_WARM_UP_S)
    rows = sampler.rows(warm_up_s)
    stored = await asyncio.to_thread(events, daemon.config)
    problems = [*(problem for row in rows for problem in row.problems()), *sampler.problems, *load.record.problems]
    problems += wrong(load.record, stored) + logged(daemon.log)
    if code or took_s > 2:
        problems.append(f"the daemon ended with code {code} after {took_s:.1f} s")
    return Report(minutes, warm_up_s, rows, figures(load.record, stored, status, sampler), problems)


def wrong(record: Record, stored: list[dict[str, Any]]) -> list[str]:
    """What the events, as stored and as they arrived, show that must never be."""
    found = []
    seqs = sorted(event["seq"] for event in stored)
    if seqs != list(range(1, len(seqs) + 1)):
        found.append("the numbers of the stored events have a gap or a repeat")
    known = {event["seq"]: event["id"] for event in stored}
    for way, arrived in (("MQTT", record.mqtt), ("the webhook", record.webhook)):
        numbers = [event["seq"] for _, event in arrived]
        if len(set(numbers)) < len(numbers):
            found.append(f"{way} got {len(numbers) - len(set(numbers))} events twice")
        for at, event in arrived:
            if known.get(event["seq"]) != event["id"]:
                found.append(f"{way} got the event {event['seq']}, which was not stored as such")
            if event["status"] == "PASS" and at > event["expires_at"]:
                found.append(f"{way} got the PASS {event['seq']} {at - event['expires_at']:.2f} s after it expired")
            if not _allowed(record, event, at):
                found.append(f"{way} got a PASS of {event['name']}, who was removed before")
    told = {event["id"]: event["name"] for _, event in (*record.mqtt, *record.webhook)}
    for event in stored:
        # A removal erases the name from the history; who it was stands in what was told.
        name = event["name"] or told.get(event["id"])
        if name and not _allowed(record, event | {"name": name}, event["timestamp"]):
            found.append(f"{name} passed (event {event['seq']}) without being enrolled")
        if name and not event["name"] and record.enrolled.get(name, (0.0, math.inf))[1] == math.inf:
            found.append(f"the event {event['seq']} has lost its name, and {name} was not removed")
        if event["status"] == "PASS" and event["latency_ms"] > MAX_AGE_S * 1000:
            found.append(f"the PASS {event['seq']} was decided {event['latency_ms']} ms after the grab")
        if event["status"] == "REJECT" and event["name"] is not None:
            found.append(f"the REJECT {event['seq']} names {event['name']}")
    if not any(event["name"] == RESIDENT for event in stored):
        found.append(f"{RESIDENT} never passed")
    return found


def _allowed(record: Record, event: dict[str, Any], at: float) -> bool:
    if event["status"] != "PASS" or event["name"] == RESIDENT:
        return True
    begin, end = record.enrolled.get(event["name"], (0.0, 0.0))
    return begin <= event["timestamp"] + MAX_AGE_S and at <= end + DELIVERY_S


def logged(log: str) -> list[str]:
    """Lines of the log that nothing explains."""
    odd = [line for line in log.splitlines() if re.search(r" (ERROR|CRITICAL) |Traceback|Error:", line)]
    odd += [line for line in log.splitlines() if " WARNING " in line and not any(text in line for text in EXPECTED)]
    return [f"in the log: {line}" for line in odd]


def figures(record: Record, stored: list[dict[str, Any]], status: dict[str, Any], sampler: Sampler) -> dict[str, float]:
    passes = [event for event in stored if event["status"] == "PASS"]
    late = [at - event["timestamp"] for at, event in record.webhook if event["status"] == "PASS"]
    return {
        "events": len(stored),
        "passes": len(passes),
        "decided within, ms (p99)": _p99([event["latency_ms"] for event in passes]),
        "arrived within, ms (p99)": _p99([seconds * 1000 for seconds in late]),
        "arrived within, ms (most)": max(late, default=0.0) * 1000,
        "registrations": len(record.enrolled),
        "first PASS after registration, s (most)": max(record.waited_s, default=0.0),
        "frames judged": sum(camera["frames"] for camera in status["cameras"]),
        "frames dropped": sum(camera["dropped"] for camera in status["cameras"]),
        "starts of the photo process": len(sampler.photo_pids),
        "photo process, most PSS in MiB": sampler.photo_peak_mib,
        **record.counts,
    }


def _p99(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=100)[98] if len(values) > 1 else max(values, default=0.0)


def table(report: Report, *, markdown: bool) -> str:
    head = ("process", "PSS MiB", "growth", "RSS MiB", "descriptors", "threads", "CPU %")
    lines = [
        (
            row.process,
            f"{row.pss_mib[0]:.1f} → {row.pss_mib[1]:.1f}",
            f"{row.growth:+.2%}",
            f"{row.rss_mib[0]:.1f} → {row.rss_mib[1]:.1f}",
            f"{row.descriptors[0]:g} → {row.descriptors[1]:g}",
            f"{row.threads[0]:g} → {row.threads[1]:g}",
            f"{row.cpu_percent:.1f}",
        )
        for row in report.rows
    ]
    counted = [(name, f"{value:.0f}") for name, value in report.figures.items()]
    if markdown:
        rule = ("---",)
        return (
            "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule * 7, *lines))
            + "\n\n"
            + "\n".join(f"| {' | '.join(cells)} |" for cells in (("what", "figure"), rule * 2, *counted))
        )
    texts = ["".join(f"{cell:>18}" for cell in cells) for cells in (head, *lines)]
    return "\n".join([*texts, "", *(f"{name:<42}{value:>10}" for name, value in counted)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--markdown", action="store_true")
    args = parser.parse_args()
    if args.minutes < 1:
        parser.error("--minutes must be at least 1")
    logging.disable()  # the subscriber's own complaints about the broker
    with tempfile.TemporaryDirectory() as folder:
        report = asyncio.run(run(Path(folder), args.minutes))
    if args.json:
        rows = [asdict(row) | {"growth": row.growth} for row in report.rows]
        print(json.dumps({"name": "soak", **asdict(report), "rows": rows}))
    else:
        print(f"{report.minutes:g} minutes, of which {report.warm_up_s:.0f} s warm-up; early → late medians\n")
        print(table(report, markdown=args.markdown))
        print("\n" + "\n".join(report.problems or ["nothing grew, nothing was wrong"]))
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
