"""`edge-face events`."""

from __future__ import annotations

import argparse
import sys

from edge_face import config, export, pages
from edge_face.commands import output
from edge_face.commands.session import open_store
from edge_face.events import utc


def events(args: argparse.Namespace) -> int:
    if output.refuses(args, "events"):
        return 2
    configured = config.load(args.config)
    store = open_store(configured)
    try:
        found = pages.each(store.events, since=args.since, until=args.until, status=args.status, newest_first=False)
        output.write(args, found, export.EVENT_COLUMNS)
        for note in store.missed(args.since, args.until):
            print(
                f"events {note.first_seq} to {note.last_seq} were told but not stored, {utc(note.since)} to "
                f"{utc(note.until)}: {note.reason}",
                file=sys.stderr,
            )
    finally:
        store.close()
    return 0
