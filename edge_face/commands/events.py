"""`edge-face events`."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime

from edge_face import config, export
from edge_face.commands.session import open_store
from edge_face.errors import RequestError


def events(args: argparse.Namespace) -> int:
    if args.format == "xlsx" and args.output is None and sys.stdout.isatty():
        print("edge-face events: xlsx is no text; name a file with -o", file=sys.stderr)
        return 2
    configured = config.load(args.config)
    since, until = (moment(text) if text else None for text in (args.since, args.until))
    store = open_store(configured)
    try:
        found = store.each_event(since=since, until=until, status=args.status, newest_first=False)
        if args.output is None:
            export.write(found, args.format, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        else:
            with args.output.open("wb") as file:
                export.write(found, args.format, file)
    finally:
        store.close()
    return 0


def moment(text: str) -> float:
    """A time as Unix seconds: ISO 8601, local where it names no zone, or Unix seconds already. Raises RequestError."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except (ValueError, OverflowError):
        raise RequestError(f"{text!r} is not a time; write 2026-01-31, 2026-01-31T08:00 or Unix seconds.") from None
