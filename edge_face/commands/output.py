"""Where a list goes: the terminal, a pipe or a file; and the bar that shows how far a long command is."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edge_face import export

_BAR = 30


def refuses(args: argparse.Namespace, command: str) -> bool:
    """Says so, if the format is none for a terminal."""
    if args.format == "xlsx" and args.output is None and sys.stdout.isatty():
        print(f"edge-face {command}: xlsx is no text; name a file with -o", file=sys.stderr)
        return True
    return False


def write(args: argparse.Namespace, rows: Iterable[Mapping[str, Any]], columns: Sequence[export.Column]) -> None:
    """As `--format` and `-o` say."""
    if args.output is None:
        export.write(rows, args.format, sys.stdout.buffer, columns)
        sys.stdout.buffer.flush()
    else:
        with args.output.open("wb") as file:
            export.write(rows, args.format, file, columns)


def shown(text: str) -> str:
    """For the terminal: what comes from a file may hold control sequences, or bytes that are no text."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def show_bar(done: int, total: int, what: str = "") -> None:
    """On a terminal only."""
    if sys.stderr.isatty():
        filled = _BAR * done // max(1, total)
        bar = f"[{'#' * filled}{'.' * (_BAR - filled)}] {done}/{total} {what}".rstrip()
        print(f"\r\033[K{bar}", end="", file=sys.stderr, flush=True)


def clear_bar() -> None:
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
