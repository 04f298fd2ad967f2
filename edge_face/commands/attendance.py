"""`edge-face attendance`."""

from __future__ import annotations

import argparse

from edge_face import config, export, pages
from edge_face.commands import output
from edge_face.commands.session import open_store


def attendance(args: argparse.Namespace) -> int:
    if output.refuses(args, "attendance"):
        return 2
    since, until = args.date or (None, None)
    store = open_store(config.load(args.config))
    try:
        rows = pages.each(store.attendance, since=since, until=until, newest_first=False)
        output.write(args, rows, export.ATTENDANCE_COLUMNS)
    finally:
        store.close()
    return 0
