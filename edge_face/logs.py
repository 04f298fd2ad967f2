"""Logging for the daemon and its children: one line an entry, on standard error or, under a unit, in the journal."""

from __future__ import annotations

import logging
import sys

from edge_face import service

FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def use_level(level: str) -> None:
    """While it runs."""
    logging.getLogger().setLevel(level.upper())


def configure(level: str) -> None:
    journal = service.journal_handler()  # it has time and level of its own
    handlers = [journal or logging.StreamHandler(sys.stderr)]
    logging.basicConfig(
        level=level.upper(), format="%(name)s: %(message)s" if journal else FORMAT, handlers=handlers, force=True
    )
    for noisy in ("aiohttp.access", "asyncio", "PIL"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
