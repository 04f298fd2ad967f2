"""What people write in words: times for the API and the command line, and headers in the configuration."""

from __future__ import annotations

import math
import re
from datetime import date, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo

from edge_face.errors import RequestError

MAX_LIMIT = 1000

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
"""RFC 9110, 5.6.2."""
_OWN_HEADERS = frozenset({"content-length", "content-type", "connection", "host", "transfer-encoding"})


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


def zone_of(text: str) -> tzinfo | None:
    """Europe/Paris, say; None for nothing: this box's own. Raises ValueError."""
    try:
        return ZoneInfo(text) if text else None
    except (KeyError, ValueError, OSError):
        raise ValueError(f"no such time zone: {text}; Europe/Paris is one, and UTC") from None


def day_of(text: str, zone: tzinfo | None = None) -> date:
    """2026-01-31, or `today`. Raises RequestError."""
    try:
        return datetime.now(zone).date() if text == "today" else date.fromisoformat(text)
    except ValueError:
        raise RequestError(f"A date is written like 2026-01-31, or today, not {text}.", "bad_time") from None


def day_span(day: date, zone: tzinfo | None = None) -> tuple[float, float]:
    """The first second of a day and of the next one, as Unix seconds. Raises RequestError for a day beyond time."""
    try:
        first, after = (datetime.combine(each, time.min, zone) for each in (day, day + timedelta(days=1)))
        return first.timestamp(), after.timestamp()
    except (ValueError, OverflowError, OSError):
        raise RequestError(f"{day} cannot be asked for.", "bad_time") from None


def headers_of(text: str) -> dict[str, str]:
    """Lines of `Name: value`. Raises ValueError, without the values, which may be secret."""
    found: dict[str, str] = {}
    for line in filter(str.strip, text.splitlines()):
        name, _, value = (part.strip() for part in line.partition(":"))
        if not (_HEADER_NAME.fullmatch(name) and value and value.isprintable()):
            raise ValueError("expected lines of Name: value")
        if name.lower() in _OWN_HEADERS or name.lower().startswith("webhook-"):
            raise ValueError(f"{name} is made by edge-face itself")
        found[name] = value
    return found
