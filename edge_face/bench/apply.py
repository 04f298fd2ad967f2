"""Writes advised settings into `config.ini`: only these values change, and the old file is kept beside it."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_face import config, settings
from edge_face.bench.advice import BUSY
from edge_face.bench.results import Advice, BenchError, Measured
from edge_face.errors import ConfigError

NO_FILE = "there is no config.ini: make one with edge-face config --defaults > config.ini"
_SECTION = re.compile(r"\[(?P<name>.+)\]")


def refusal(measured: Measured, advice: Advice, file: str) -> str:
    """Why the advice must not be written; empty if it may."""
    if not file:
        return NO_FILE
    if not advice.holds:
        return f"nothing holds {advice.latency_ms:.0f} ms on this board"
    if measured.vitals.throttled:
        return f"the board was slowed down while it was measured: {'; '.join(measured.vitals.throttled)}"
    if measured.vitals.others > BUSY:
        return (
            f"other programs took {measured.vitals.others:.0%} of the processor meanwhile, so the figures are not this "
            "board's; stop them (edge-face itself, too) and measure again"
        )
    return ""


def apply(advice: Advice, file: Path) -> Path:
    """Returns the copy of the old file. Raises BenchError, and leaves the file as it was, or OSError."""
    file = file.resolve()  # a link goes on pointing there
    with file.open(encoding="utf-8", newline="") as old:
        text = changed(old.read(), advice.settings)
    handle, name = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
    fresh = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as new:
            new.write(text)
            new.flush()
            os.fsync(new.fileno())
        _check(fresh, advice.settings)
        _like(file, fresh)
        kept = _free_name(file)
        kept.touch(mode=0o600, exist_ok=False)
        kept.write_bytes(file.read_bytes())
        _like(file, kept)
        fresh.replace(file)
    finally:
        fresh.unlink(missing_ok=True)
    return kept


def changed(text: str, wanted: dict[str, str]) -> str:
    """`text` with these values (`section.key`). A camera's own value of a key of [camera] changes as well."""
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith(("\n", "\r")):
        lines[-1] += newline
    for name, value in reversed(wanted.items()):  # each new one stands at the head of its section
        section, _, key = name.partition(".")
        lines = _set(lines, section, key, value, newline)
    return "".join(lines)


def _set(lines: list[str], section: str, key: str, value: str, newline: str) -> list[str]:
    """The same lines with that key; it is added at the head of its section where the plain section has none."""
    is_key = re.compile(rf"{re.escape(key)}\s*[=:]", re.ASCII)
    found: list[str] = []
    heading_at, present = -1, False
    here, replacing = "", False
    for line in lines:
        heading = _SECTION.match(line)
        if heading:
            here = heading["name"]
        if replacing and line[:1] in (" ", "\t") and line.strip():
            continue  # the old value went on here
        replacing = False
        mine = here == section or here.partition(":")[0] == section
        if mine and not heading and is_key.match(line):
            line = f"{key} = {value}{newline}"
            replacing = True
            present = present or here == section
        found.append(line)
        if heading and here == section:
            heading_at = len(found)
    if not present:
        addition = [f"{key} = {value}{newline}"]
        if heading_at < 0:
            addition = [newline, f"[{section}]{newline}", *addition]
            heading_at = len(found)
        found[heading_at:heading_at] = addition
    return found


def _check(fresh: Path, wanted: Mapping[str, str]) -> None:
    """The daemon must read from it what was advised. Raises BenchError."""
    try:
        read = config.load(fresh)
    except ConfigError as error:
        raise BenchError(f"The configuration would not be valid any more: {error.message}") from None
    for name, value in wanted.items():
        section, _, key = name.partition(".")
        holders: list[Any] = list(read.cameras.values()) if section == "camera" else [getattr(read, section)]
        if any(_text(holder, key) != value for holder in holders):
            raise BenchError(
                f"[{section}] {key} would still not be {value}: a variable of the environment "
                f"({config.ENV_PREFIX}...) says otherwise"
            )


def _text(section: Any, key: str) -> str:
    return config.as_text(getattr(section, key), settings.limits_of(type(section))[key][1])


def _like(old: Path, fresh: Path) -> None:
    """Its rights and owner: passwords may stand in it, and the service must be able to read it."""
    status = old.stat()
    shutil.copymode(old, fresh)
    if os.geteuid() == 0:
        os.chown(fresh, status.st_uid, status.st_gid)


def _free_name(file: Path) -> Path:
    stem = f"{file.name}.{time.strftime('%Y%m%d-%H%M%S')}"
    names = (file.with_name(f"{stem}{suffix}") for suffix in ("", *(f"-{number}" for number in range(1, 100))))
    for path in names:
        if not path.exists():
            return path
    raise BenchError(f"There are too many copies of {file} beside it")
