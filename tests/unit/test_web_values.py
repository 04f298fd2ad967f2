"""Times, limits, formats and base64 as clients write them."""

from __future__ import annotations

import base64
from datetime import datetime

import pytest
from aiohttp.test_utils import make_mocked_request

from edge_face.errors import RequestError
from edge_face.queries import parse_limit, parse_time
from edge_face.web.dropin import image_bytes
from edge_face.web.events import wanted_format
from edge_face.web.forms import Form

PICTURE = bytes([0xFF, 0xD8, 0xFB, 0xFE, *range(256)])
"""Its base64 holds `+` and `/`."""
CODED = base64.b64encode(PICTURE)


@pytest.mark.parametrize(
    "sent",
    [
        PICTURE,
        CODED,
        CODED.rstrip(b"="),
        base64.urlsafe_b64encode(PICTURE),
        base64.encodebytes(PICTURE),
        CODED.replace(b"+", b" "),
        b"data:image/jpeg;base64," + CODED,
        b"  DATA:;BASE64," + CODED + b"\r\n",
    ],
)
def test_pictures_in_many_wrappings(sent: bytes) -> None:
    assert image_bytes(sent) == PICTURE


@pytest.mark.parametrize("sent", [b"data:image/jpeg,abc", b"data:;base64,", b"data:;base64,%%%", b"data:", b"abcde"])
def test_broken_wrappings(sent: bytes) -> None:
    with pytest.raises(RequestError):
        image_bytes(sent)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("1736400000.5", 1736400000.5),
        ("2025-01-09T05:20:00Z", 1736400000.0),
        ("2025-01-09T07:20:00+02:00", 1736400000.0),
        ("2025-01-09T07:20:00 02:00", 1736400000.0),
        ("2025-01-09T05:20:00.250Z", 1736400000.25),
        ("2025-01-09 07:20", datetime(2025, 1, 9, 7, 20).timestamp()),  # noqa: DTZ001  # local time is meant
        ("2025-01-09", datetime(2025, 1, 9).timestamp()),  # noqa: DTZ001
    ],
)
def test_times(text: str | None, seconds: float | None) -> None:
    assert parse_time(text, "since") == seconds


@pytest.mark.parametrize("text", ["", "nan", "inf", "1e999", "yesterday", "2025-13-01"])
def test_impossible_times(text: str) -> None:
    with pytest.raises(RequestError, match="since"):
        parse_time(text, "since")


@pytest.mark.parametrize("text", ["0", "1001", "-1", "", "1.5", "٣", "9" * 30])
def test_impossible_limits(text: str) -> None:
    with pytest.raises(RequestError):
        parse_limit(text)


@pytest.mark.parametrize(
    ("path", "accept", "kind"),
    [
        ("/", "", "json"),
        ("/", "*/*", "json"),
        ("/", "text/html, text/csv;q=0.5", "csv"),
        ("/", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "xlsx"),
        ("/?format=XLSX", "text/csv", "xlsx"),
    ],
)
def test_formats(path: str, accept: str, kind: str) -> None:
    assert wanted_format(make_mocked_request("GET", path, headers={"Accept": accept})) == kind


def test_flags() -> None:
    assert [Form({"force": text}).flag("force") for text in ("1", "True", "no", "")] == [True, True, False, False]
    assert not Form().flag("force")
