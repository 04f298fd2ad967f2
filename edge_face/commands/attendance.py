"""`edge-face attendance`."""

from __future__ import annotations

import argparse

from edge_face import config, export, pages
from edge_face.commands import output
from edge_face.commands.session import open_store
from edge_face.days import Days
from edge_face.queries import day_of, day_span, zone_of


def attendance(args: argparse.Namespace) -> int:
    if output.refuses(args, "attendance"):
        return 2
    configured = config.load(args.config)
    zone = zone_of(configured.attendance.timezone)
    since, until = day_span(day_of(args.date, zone), zone) if args.date else (None, None)
    store = open_store(configured)
    try:
        listing = Days(store, zone).page if args.daily else store.attendance
        columns = export.DAY_COLUMNS if args.daily else export.ATTENDANCE_COLUMNS
        output.write(args, pages.each(listing, since=since, until=until, newest_first=False), columns)
    finally:
        store.close()
    return 0
