"""The boards of benchmarks/results: adds one, checks all, and prints the table and the schema.

usage: python benchmarks/results.py add FILE --who NAME --model MODEL | check | table | schema

    add     makes a result of FILE, which `edge-face bench --json FILE` (measured) or `benchmarks/predict.py --json
            FILE` (10 seconds: all else is predicted) wrote on that board, and writes the table anew. What is nobody's
            business is left out. MODEL: the board as its shop calls it, "Raspberry Pi 5, 8 GB"; NAME: yours, or any
    check   names everything that is wrong with any of them; exit code 1 if there is something
    table   benchmarks/results/README.md
    schema  benchmarks/results/schema.json (JSON Schema, draft 2020-12)

A board is measured when real cameras ran on it, and only then: `kind` says so, and each kind has other contents. What a
predicted one manages is never in its file, but reckoned from its speeds whenever the table is printed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import msgspec

from edge_face.bench.advice import BUSY
from edge_face.bench.counts import SMALLEST_PX
from edge_face.bench.predict import Scenario, predict
from edge_face.bench.results import FORMAT, BenchError, Measured, Rates, Speeds, Timing

FOLDER = Path(__file__).parent / "results"
SCHEMA, TABLE = "schema.json", "README.md"
SOURCE, SIZE = "the demo's photos", (640, 480)
"""Everybody has them, so that boards can be compared, and no camera's address or clip's name is told."""
NEEDED_STAGES = ("grab", "motion", "scale", "align", "encode")
FIRST_DAY = datetime(2025, 1, 1, tzinfo=UTC)
HOTTEST_C, MOST_WATTS, MOST_CPUS = 130.0, 1000.0, 512
CLOCK_TOLERANCE = 1.1
PRIVATE = re.compile("@|://|/home/|/root/")


class MeasuredBoard(msgspec.Struct, tag_field="kind", tag="measured", forbid_unknown_fields=True, frozen=True):
    """Real cameras ran on it."""

    who: str
    model: str
    format: int
    report: Measured

    @property
    def rates(self) -> Rates | None:
        return self.report.rates


class PredictedBoard(msgspec.Struct, tag_field="kind", tag="predicted", forbid_unknown_fields=True, frozen=True):
    """Its speeds are known, and nothing else."""

    who: str
    model: str
    format: int
    report: Speeds

    @property
    def rates(self) -> Rates:
        return self.report.rates


Result = MeasuredBoard | PredictedBoard


def schema() -> str:
    """Nothing may be in a file that is not named."""
    found = msgspec.json.schema(Result)
    for each in found["$defs"].values():
        if "properties" in each:
            each["additionalProperties"] = False
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **found}, indent=1) + "\n"


def parse(content: str) -> Result:
    """Raises ValueError with the reason."""
    data = json.loads(content)
    found: Result = msgspec.convert(data, Result)
    if unknown := sorted(_unknown(data, json.loads(msgspec.json.encode(found)))):
        raise ValueError(f"holds what no result has: {', '.join(unknown)}")
    return found


def _unknown(data: Any, known: Any, at: str = "") -> Iterator[str]:
    """Dataclasses ignore what they do not know."""
    if isinstance(data, dict) and isinstance(known, dict):
        for key, value in data.items():
            if key in known:
                yield from _unknown(value, known[key], f"{at}{key}.")
            else:
                yield at + key
    elif isinstance(data, list) and isinstance(known, list):
        for one, other in zip(data, known, strict=True):
            yield from _unknown(one, other, at)


def load(folder: Path) -> tuple[dict[str, Result], list[str]]:
    """Results by file name, and what is wrong with the others."""
    results: dict[str, Result] = {}
    wrong: list[str] = []
    for path in sorted(folder.glob("*.json")):
        if path.name != SCHEMA:
            try:
                results[path.name] = parse(path.read_text(encoding="utf-8"))
            except ValueError as error:
                wrong.append(f"{path.name}: {error}")
    return results, wrong


def problems(results: Mapping[str, Result], now: datetime) -> Iterator[str]:
    """What is wrong with any of them, or with all together."""
    seen: dict[str, str] = {}
    for name, result in results.items():
        for problem in _problems(result, now):
            yield f"{name}: {problem}"
        if name != file_name(result.model):
            yield f"{name}: its name must be {file_name(result.model)}"
        board = result.report.board
        same = f"{re.sub('[^a-z0-9]', '', result.model.lower())}, {board.cpus} processors"
        if same in seen:
            yield f"{name}: is the same board as {seen[same]}; the newer one, or the measured one, may stay"
        seen[same] = name


def file_name(model: str) -> str:
    return re.sub("[^a-z0-9]+", "-", model.lower()).strip("-") + ".json"


def _problems(result: Result, now: datetime) -> Iterator[str]:
    report = result.report
    if result.format != FORMAT:
        yield f"is of format {result.format}; this one is {FORMAT}: measure again"
        return
    for name, text in (("who", result.who), ("model", result.model)):
        if not 1 <= len(text.strip()) <= 80:
            yield f"{name} has 1 to 80 characters"
    if private := PRIVATE.search(msgspec.json.encode(result).decode()):
        yield f"tells something private: {private[0]}"
    board = report.board
    if not (1 <= board.cpus <= MOST_CPUS and board.memory_mib > 0):
        yield f"{board.cpus} processors and {board.memory_mib} MiB are impossible"
    try:
        at = datetime.fromisoformat(report.date)
        if at.tzinfo is None or not FIRST_DAY <= at <= now + timedelta(days=1):
            yield f"was not measured at {report.date}"
    except ValueError:
        yield f"{report.date!r} is no date"
    others = report.others if isinstance(report, Speeds) else report.vitals.others
    if not 0 <= others <= BUSY:
        yield f"other programs took {others:.0%} of the processor meanwhile: these are not the board's figures"
    if report.rates:
        yield from _rate_problems(report.rates)
    if isinstance(report, Measured):
        yield from _measured_problems(report)


def _rate_problems(rates: Rates) -> Iterator[str]:
    if min(rates.copy_gbs, rates.copy_all_gbs, rates.fresh_gbs) <= 0 or rates.rounds < 1:
        yield "its memory's speed is impossible"
    if rates.speed("hog") is None or rates.speed("encode") is None:
        yield "its speeds are not complete"
    for speed in rates.speeds:
        if speed.gflops < 0 or speed.fixed_ms < 0 or not (speed.gflops or speed.fixed_ms) or speed.threads < 1:
            yield f"its speed of {speed.kind} is impossible"


def _measured_problems(report: Measured) -> Iterator[str]:
    if report.quick:
        yield "is a quick run; a result is a whole one"
    if (report.source, report.width, report.height) != (SOURCE, *SIZE):
        yield f"was measured with other pictures than {SOURCE}, {SIZE[0]}x{SIZE[1]}"
    if report.notes:
        yield "has notes, which may tell something private"
    for name in NEEDED_STAGES:
        if report.stage(name) is None:
            yield f"is not measured: {name} is missing"
    if not report.cameras or not report.searches:
        yield "is not measured: no camera ran"
    costs = [each.timing for each in report.searches] + [each.timing for each in report.threads]
    costs += [each.timing for each in report.matches] + [run.frame for run in report.cameras]
    for timing in (*report.stages, *costs):
        if not _is_possible(timing):
            yield f"{timing.name}: its times are impossible"
    grab, motion = report.stage("grab"), report.stage("motion")
    least_ms = (grab.p50_ms if grab else 0.0) + (motion.p50_ms if motion else 0.0)
    for run in report.cameras:
        busy = run.fps * run.cpu_ms / 1000
        if not (run.cameras >= 1 and 0 < run.fps * least_ms <= 1000 * run.cameras * CLOCK_TOLERANCE):
            yield f"{run.cameras} cameras with {run.detector}: {run.fps} frames a second are impossible"
        if not 0 < busy <= CLOCK_TOLERANCE * report.board.cpus:
            yield f"{run.cameras} cameras with {run.detector}: {busy:.2f} busy processors are impossible"
        if not 0 < run.memory_mib < report.board.memory_mib:
            yield f"{run.cameras} cameras with {run.detector}: {run.memory_mib} MiB are impossible"
    hottest, watts = report.vitals.hottest_c, report.vitals.watts
    if (hottest is not None and not -50 < hottest < HOTTEST_C) or (watts is not None and not 0 < watts < MOST_WATTS):
        yield f"{hottest} °C and {watts} W are impossible"


def _is_possible(timing: Timing) -> bool:
    return timing.runs >= 1 and 0 < timing.p50_ms <= timing.p95_ms <= timing.p99_ms


def made(data: Mapping[str, Any], who: str, model: str) -> Result:
    """A result of what was written on the board, without what is nobody's business. Raises ValueError."""
    version = data.get("format", 0)
    if "cameras" not in data:
        return PredictedBoard(who, model, version, msgspec.convert(data, Speeds))
    return MeasuredBoard(who, model, version, msgspec.convert({**data, "notes": []}, Measured))


def table(results: Mapping[str, Result]) -> Iterator[str]:
    """README.md, line by line."""
    yield "# Boards"
    yield ""
    yield "Printed by `benchmarks/results.py table`; how to add yours: [docs/benchmarks.md](../../docs/benchmarks.md)."
    yield "Frames a second of one camera and of two together, as fast as they can: 640x480, somebody comes, stays and"
    yield "goes, 1,000 faces enrolled. **measured**: real cameras ran on the board. *predicted*: nobody has tried;"
    yield "reckoned from ten seconds on it, and marked ≈. Empty: not measured, and not predicted either. Error: of the"
    yield "prediction that the same board's ten seconds give for one camera, where both are known."
    yield ""
    detectors = [f"{name}, {count}" for name in SMALLEST_PX for count in (1, 2)]
    heads = ("board", "kind", "processors", "MiB", "backend", *detectors, "error", "°C", "by", "day")
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for result in sorted(results.values(), key=lambda each: each.model):
        report = result.report
        kind = "**measured**" if isinstance(result, MeasuredBoard) else "*predicted*"
        board = f"{_plain(result.model)} ({_plain(report.board.name)})"
        figures = [_fps(result, name, count) for name in SMALLEST_PX for count in (1, 2)]
        cells = (
            *(board, kind, str(report.board.cpus), str(report.board.memory_mib), _plain(report.backend)),
            *(*figures, _error(result), _hottest(result), _plain(result.who), report.date[:10]),
        )
        yield f"| {' | '.join(cells)} |"


def _fps(result: Result, detector: str, cameras: int) -> str:
    if isinstance(result, MeasuredBoard):
        fps = _measured_fps(result.report, detector, cameras)
        return "" if fps is None else f"{fps:.1f}"
    predicted = _predicted_fps(result.report.board.cpus, result.rates, detector, cameras)
    return "" if predicted is None else f"≈ {predicted:.1f}"


def _measured_fps(report: Measured, detector: str, cameras: int) -> float | None:
    return next((run.fps for run in report.cameras if (run.detector, run.cameras) == (detector, cameras)), None)


def _predicted_fps(cpus: int, rates: Rates, detector: str, cameras: int) -> float | None:
    threads = min(2, max(1, cpus // 2))  # `[engine] threads = 0`
    found = predict(rates, Scenario(*SIZE, detector, cpus, cameras, threads))
    return found.fps if found else None


def _error(result: Result) -> str:
    errors = []
    if isinstance(result, MeasuredBoard) and result.rates:
        for name in SMALLEST_PX:
            measured = _measured_fps(result.report, name, 1)
            predicted = _predicted_fps(result.report.board.cpus, result.rates, name, 1)
            if measured and predicted:
                errors.append(f"{name} {predicted / measured - 1:+.0%}")
    return ", ".join(errors)


def _hottest(result: Result) -> str:
    if isinstance(result, PredictedBoard):
        return ""
    vitals = result.report.vitals
    throttled = ", throttled" if vitals.throttled else ""
    return ("" if vitals.hottest_c is None else f"{vitals.hottest_c:.0f}") + throttled


def _plain(text: str) -> str:
    """A cell's words cannot end the cell, nor be anything but words."""
    return re.sub(r"[|<>\[\]`*\\\n\r]", " ", text).strip()


def add(path: Path, who: str, model: str, folder: Path) -> Path:
    """Raises BenchError."""
    try:
        result = made(json.loads(path.read_text(encoding="utf-8")), who, model)
    except (OSError, ValueError, AttributeError) as error:
        raise BenchError(f"{path}: is no report of a board: {error}") from None
    name = file_name(model)
    others, _ = load(folder)
    if isinstance(result, PredictedBoard) and isinstance(others.get(name), MeasuredBoard):
        raise BenchError(f"{name} is measured, which is worth more than predicted")
    wrong = list(problems({**others, name: result}, datetime.now(UTC)))
    if wrong:
        raise BenchError("\n".join(wrong))
    content = json.dumps(json.loads(msgspec.json.encode(result)), indent=1, ensure_ascii=False)
    (folder / name).write_text(content + "\n", encoding="utf-8")
    (folder / TABLE).write_text("\n".join(table({**others, name: result})) + "\n", encoding="utf-8")
    return folder / name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("add", "check", "table", "schema"))
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--who", default="")
    parser.add_argument("--model", default="")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the results")
    args = parser.parse_args()
    results, wrong = load(args.folder)
    if args.what == "schema":
        print(schema(), end="")
    elif args.what == "table":
        print(*table(results), sep="\n")
    elif args.what == "add":
        if not (args.file and args.who and args.model):
            parser.error("add needs FILE, --who and --model")
        try:
            print(add(args.file, args.who, args.model, args.folder))
        except BenchError as error:
            sys.exit(error.message)
    else:
        wrong += problems(results, datetime.now(UTC))
        print(*wrong, sep="\n") if wrong else print(f"{len(results)} boards, all valid")
        sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
