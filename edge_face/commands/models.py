"""`edge-face models`: lists and verifies the weights files, and tests every backend in a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import importlib.util
import json
import sys
from dataclasses import asdict, dataclass
from typing import Any

from edge_face import backends, config, settings
from edge_face.child import started
from edge_face.errors import WorkerError
from edge_face.messages import PhotoJob
from edge_face.vision.files import FILES, WeightsFile
from edge_face.vision.models import BACKENDS, model_cache, weights

_MODULES = {"onnxruntime": "onnxruntime", "opencv": "cv2", "face_recognition": "dlib"}


@dataclass(frozen=True, slots=True)
class BackendRow:
    name: str
    version: str
    ok: bool
    finding: str
    ms_per_face: float | None = None


@dataclass(frozen=True, slots=True)
class FileRow:
    name: str
    purpose: str
    licence: str
    state: str
    converted: bool | None
    """Whether the model made from it is in the cache; None where none is made."""


def models(args: argparse.Namespace) -> int:
    configured = config.load(args.config)
    tested = asyncio.run(_test_all(configured.engine))
    files = [_verify(file) for file in FILES]  # after the tests, which convert what is not in the cache yet
    if args.json:
        print(json.dumps({"files": [asdict(row) for row in files], "backends": [asdict(row) for row in tested]}))
    else:
        _print(files, tested)
    problems = [f"{row.name} is {row.state}" for row, file in zip(files, FILES, strict=True) if _bad(row, file)]
    if not any(row.ok for row in tested):
        problems.append("no backend works")
    if problems:
        print(f"edge-face models: {', '.join(problems)}", file=sys.stderr)
    return 1 if problems else 0


def _bad(row: FileRow, file: WeightsFile) -> bool:
    return row.state == "wrong" or (file.used and row.state == "missing")


def _verify(file: WeightsFile) -> FileRow:
    state = file.state()
    cached = model_cache().has(weights(file.name)) if file.converted and state != "missing" else None
    return FileRow(file.name, file.purpose, file.licence, state, cached)


async def _test_all(engine: settings.Engine) -> list[BackendRow]:
    """One after the other, so that each has the whole machine. One that works is no longer remembered as crashed."""
    rows = [await _test(name, engine) for name in BACKENDS]
    remembered = backends.Backends.remembered()
    for row in rows:
        if row.ok:
            remembered.forgive(row.name)
    return rows


async def _test(name: str, engine: settings.Engine) -> BackendRow:
    version = backends.version(name)
    if importlib.util.find_spec(_MODULES[name]) is None:
        return BackendRow(name, version, False, "not installed")
    try:
        child, ready = await started(PhotoJob(dataclasses.replace(engine, backend=name), "error"), backends.Backends())
    except WorkerError as error:
        return BackendRow(name, version, False, error.message)
    await child.close()
    return BackendRow(name, version, True, "passed its self-test", round(ready.encode_ms, 1))


def _print(files: list[FileRow], tested: list[BackendRow]) -> None:
    converted = {True: "converted", False: "not converted yet", None: ""}
    _table([(row.name, row.state, row.purpose, row.licence, converted[row.converted]) for row in files])
    print()
    _table([(row.name, "ok" if row.ok else "FAILED", row.version, _finding(row)) for row in tested])


def _finding(row: BackendRow) -> str:
    return row.finding if row.ms_per_face is None else f"{row.finding}, {row.ms_per_face:.1f} ms a face"


def _table(rows: list[tuple[Any, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
