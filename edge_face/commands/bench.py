"""`edge-face bench`: measures this board and says what it can serve."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from edge_face import config, logs
from edge_face.bench import apply, html, table
from edge_face.bench.advice import advise
from edge_face.bench.results import BenchError, as_json
from edge_face.commands.output import clear_bar, show_bar


def bench(args: argparse.Namespace) -> int:
    configured = config.load(args.config)
    for path in (args.json, args.html):
        if path:
            _must_be_writable(path)
    if args.apply and not configured.file:
        raise BenchError(f"Nothing can be applied: {apply.NO_FILE}")
    logs.configure("error")
    from edge_face.bench.run import Bench  # OpenCV and all models

    one = Bench(configured, args.source or "", quick=args.quick, progress=show_bar, limit_s=args.seconds)
    try:
        measured = one.run()
    finally:
        clear_bar()
    advice = advise(measured, one.wishes(args.latency))
    for line in table.lines(measured, advice):
        print(line)
    if args.json:
        args.json.write_text(json.dumps(as_json(measured, advice), indent=1) + "\n", encoding="utf-8")
    if args.html:
        args.html.write_text(html.page(measured, advice), encoding="utf-8")
    if args.apply:
        sys.stdout.flush()
        if refused := apply.refusal(measured, advice, configured.file):
            raise BenchError(f"{configured.file} was not changed: {refused}")
        kept = apply.apply(advice, Path(configured.file))
        print(f"\nwritten to {configured.file}; the old file is {kept}; restart edge-face to use it")
    return 0 if advice.holds else 1


def _must_be_writable(path: Path) -> None:
    """Told before the minutes that it takes, not after. Raises BenchError."""
    if path.is_dir():
        raise BenchError(f"{path} is a folder; name a file in it")
    if not path.parent.is_dir():
        raise BenchError(f"There is no folder {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise BenchError(f"{path} cannot be written")
