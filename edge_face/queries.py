"""What people ask for in words: times and page sizes, for the API and the command line alike."""

from __future__ import annotations

import math
import re
from datetime import datetime

from edge_face.errors import RequestError

MAX_LIMIT = 1000


def local_time(timestamp: float) -> str:
    """Unix seconds as people write them: 2026-01-31 08:00, without seconds where there are none."""
    at = datetime.fromtimestamp(timestamp)  # noqa: DTZ006  # the local time is what is wanted
    return at.isoformat(" ", "minutes" if at.second == 0 else "seconds")


def parse_time(text: str | None, what: str) -> float | None:
    """Unix seconds, or ISO 8601, which without a zone means the local time of this box. Raises RequestError."""
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        # In a query a plus sign that was not escaped arrives as a blank.
        iso = re.sub(r" (?=\d\d:?\d\d$)", "+", text.strip()) if "T" in text else text.strip()
        try:
            seconds = datetime.fromisoformat(iso).timestamp()
        except (ValueError, OverflowError, OSError):
            seconds = math.nan
    if not math.isfinite(seconds):
        raise RequestError(f"{what} is Unix seconds or ISO 8601, like 2025-01-09T05:20:00Z.", "bad_time")
    return seconds
