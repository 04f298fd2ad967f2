"""benchmarks/results: what is refused, that nothing predicted is shown as measured, and that all of ours are valid."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from benchmarks import results
from edge_face.bench.results import (
    FORMAT,
    BenchError,
    Board,
    CameraRun,
    MatchCost,
    Measured,
    Rates,
    SearchCost,
    Speed,
    Speeds,
    Timing,
    Vitals,
)

NOW = datetime(2026, 6, 1, tzinfo=UTC)
BOARD = Board("Cortex-A76", "aarch64", 4, 8000, {"edge-face": "0.1.0", "opencv": "opencv-python-headless 4.11.0.86"})
RATES = Rates(
    tuple(
        Speed(kind, 1, 10.0, 0.5)
        for kind in ("hog", "cnn", "encode", "scale", "grab", "motion", "align", "JPEG", "follow", "hand over", "match")
    ),
    *(10.0, 20.0, 1.0, 5, 10.0),
)


def took(name: str, ms: float) -> Timing:
    return Timing(name, ms, ms + 1, ms + 2, 10)


MEASURED = Measured(
    board=BOARD,
    source="the demo's photos",
    width=640,
    height=480,
    backend="onnxruntime",
    quick=False,
    date="2026-05-01T10:00:00+00:00",
    seconds=160.0,
    start_s=2.0,
    stages=tuple(took(name, 1.0) for name in results.NEEDED_STAGES),
    searches=(SearchCost("hog", 80, took("detect hog", 80.0)),),
    threads=(),
    matches=(MatchCost(1000, took("match 1,000", 0.1)),),
    cameras=(
        CameraRun("hog", 1, 11.0, took("frame", 80.0), 150.0, 85.0),
        CameraRun("hog", 2, 21.0, took("frame", 82.0), 150.0, 86.0),
    ),
    vitals=Vitals(),
    rates=RATES,
)
SPEEDS = Speeds(BOARD, "2026-05-01T10:00:00+00:00", "onnxruntime", 0.01, RATES)


def measured(model: str = "Board A, 8 GB", who: str = "Jan", **changes: Any) -> results.MeasuredBoard:
    return results.MeasuredBoard(who, model, FORMAT, dataclasses.replace(MEASURED, **changes))


def predicted(model: str = "Board B", **changes: Any) -> results.PredictedBoard:
    return results.PredictedBoard("Jan", model, FORMAT, dataclasses.replace(SPEEDS, **changes))


def wrong(*found: results.Result, at: datetime = NOW) -> str:
    return "\n".join(results.problems({results.file_name(each.model): each for each in found}, at))


def content(result: results.Result) -> str:
    return results.msgspec.json.encode(result).decode()


def test_good_ones_are_good() -> None:
    assert wrong(measured(), predicted()) == ""
    for each in (measured(), predicted()):
        assert results.parse(content(each)) == each


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cameras": ()}, "is not measured: no camera ran"),
        ({"searches": ()}, "is not measured: no camera ran"),
        ({"stages": MEASURED.stages[1:]}, "is not measured: grab is missing"),
        ({"quick": True}, "quick run"),
        ({"source": "visit.mp4"}, "other pictures"),
        ({"width": 320}, "other pictures"),
        ({"notes": ("publish: 10.0.0.7 refused",)}, "something private"),
        ({"backend": "onnx@home"}, "something private: @"),
        ({"date": "2026-05-01T10:00:00"}, "not measured at"),
        ({"date": "2031-05-01T10:00:00+00:00"}, "not measured at"),
        ({"date": "yesterday"}, "is no date"),
        ({"vitals": Vitals(others=0.5)}, "50% of the processor"),
        ({"board": dataclasses.replace(BOARD, cpus=0)}, "0 processors"),
        ({"stages": (*MEASURED.stages, Timing("x", 5.0, 4.0, 6.0, 10))}, "x: its times are impossible"),
        ({"stages": (*MEASURED.stages, Timing("x", 5.0, 5.0, 6.0, 0))}, "x: its times are impossible"),
        ({"cameras": (dataclasses.replace(MEASURED.cameras[0], fps=0.0),)}, "frames a second are impossible"),
        ({"cameras": (dataclasses.replace(MEASURED.cameras[0], fps=900.0),)}, "frames a second are impossible"),
        ({"cameras": (dataclasses.replace(MEASURED.cameras[0], cpu_ms=900.0),)}, "busy processors are impossible"),
        ({"cameras": (dataclasses.replace(MEASURED.cameras[0], memory_mib=9000.0),)}, "MiB are impossible"),
        ({"rates": dataclasses.replace(RATES, speeds=RATES.speeds[1:])}, "speeds are not complete"),
        ({"rates": dataclasses.replace(RATES, copy_gbs=0.0)}, "memory's speed is impossible"),
        ({"rates": dataclasses.replace(RATES, speeds=(*RATES.speeds, Speed("x", 1, -1.0, 0.0)))}, "speed of x"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], words: str) -> None:
    assert words in wrong(measured(**changes))


def test_another_format_is_refused() -> None:
    old = results.MeasuredBoard("Jan", "Board A", FORMAT - 1, MEASURED)
    assert "measure again" in wrong(old)


def test_a_board_is_there_once() -> None:
    assert "is the same board as board-a-8-gb.json" in wrong(measured(), predicted("BoardA 8GB"), measured("C"))
    assert "its name must be board-a-8-gb.json" in "\n".join(results.problems({"mine.json": measured()}, NOW))


def test_predicted_is_never_shown_as_measured() -> None:
    rows = [line for line in results.table({"a": measured(), "b": predicted()}) if line.startswith("| Board")]
    assert "**measured**" in rows[0]
    assert "≈" not in rows[0]
    assert "11.0 | 21.0" in rows[0]
    assert "hog -" in rows[0] or "hog +" in rows[0]
    assert "*predicted*" in rows[1]
    assert "measured" not in rows[1]
    figures = [cell.strip() for cell in rows[1].split("|")[6:12]]
    assert all(cell.startswith("≈") for cell in figures[:4])
    assert figures[4:] == ["", ""]  # yunet's speed is not known


def test_the_kind_cannot_be_changed_by_hand() -> None:
    """Neither by another word, nor by leaving out what was never measured."""
    for result, kind in ((predicted(), "measured"), (measured(), "predicted")):
        data = json.loads(content(result)) | {"kind": kind}
        with pytest.raises(ValueError, match=r"missing required field|holds what no result has"):
            results.parse(json.dumps(data))
    data = json.loads(content(measured()))
    del data["report"]["cameras"]
    with pytest.raises(ValueError, match="missing required field `cameras`"):
        results.parse(json.dumps(data))
    del data["kind"]
    with pytest.raises(ValueError, match="kind"):
        results.parse(json.dumps(data))


def test_a_predicted_one_cannot_bring_its_own_frames() -> None:
    data = json.loads(content(predicted()))
    data["report"]["cameras"] = [{"fps": 99}]
    with pytest.raises(ValueError, match=r"holds what no result has: report\.cameras"):
        results.parse(json.dumps(data))


def test_the_schema_refuses_the_same() -> None:
    schema = jsonschema_rs.validator_for(json.loads(results.schema()))
    for result in (measured(), predicted()):
        good = json.loads(content(result))
        assert schema.is_valid(good)
        assert not schema.is_valid(good | {"more": 1})
        assert not schema.is_valid({**good, "report": {**good["report"], "more": 1}})
        assert not schema.is_valid({**good, "kind": "guessed"})
    data = json.loads(content(measured()))
    del data["report"]["cameras"]
    assert not schema.is_valid(data)


def test_a_name_cannot_break_the_table() -> None:
    rows = list(results.table({"a": measured(who="x | **measured** | [a](b)")}))
    assert rows[-1].count("|") == rows[-2].count("|")
    assert "](" not in rows[-1]


def test_adding_a_board(tmp_path: Path) -> None:
    """From what the commands write; what is nobody's business stays out, and the table is written anew."""
    report = {"format": FORMAT, **dataclasses.asdict(MEASURED), "notes": ["rtsp://me:secret@10.0.0.7"], "advice": {}}
    (tmp_path / "sent").write_text(json.dumps(report))
    folder = tmp_path / "results"
    folder.mkdir()
    added = results.add(tmp_path / "sent", "Jan", "Board A, 8 GB", folder)
    assert added.name == "board-a-8-gb.json"
    assert "secret" not in added.read_text()
    (tmp_path / "speeds").write_text(json.dumps({"format": FORMAT, **dataclasses.asdict(SPEEDS)}))
    results.add(tmp_path / "speeds", "Eva", "Board B", folder)
    found, bad = results.load(folder)
    assert not bad
    assert [type(each) for each in found.values()] == [results.MeasuredBoard, results.PredictedBoard]
    assert "≈" in (folder / results.TABLE).read_text()
    with pytest.raises(BenchError, match=r"board-a-8-gb\.json is measured"):
        results.add(tmp_path / "speeds", "Eva", "Board A, 8 GB", folder)
    busy = {**report, "vitals": dataclasses.asdict(Vitals(others=0.9))}
    (tmp_path / "busy").write_text(json.dumps(busy))
    with pytest.raises(BenchError, match="90%"):
        results.add(tmp_path / "busy", "Jan", "Board C", folder)
    with pytest.raises(BenchError, match="no report of a board"):
        results.add(folder / results.TABLE, "Jan", "Board D", folder)
    assert not (folder / "board-c.json").exists()


def test_what_is_committed_is_valid_and_is_what_the_command_prints() -> None:
    found, bad = results.load(results.FOLDER)
    assert not bad
    assert list(results.problems(found, datetime.now(UTC))) == []
    assert (results.FOLDER / results.SCHEMA).read_text() == results.schema()
    assert (results.FOLDER / results.TABLE).read_text() == "\n".join(results.table(found)) + "\n"
