"""Times, limits, formats and base64 as clients write them."""

from __future__ import annotations

import base64
from datetime import datetime

import pytest
from aiohttp.test_utils import make_mocked_request

from edge_face.errors import RequestError
from edge_face.queries import parse_time
from edge_face.web.dropin import image_bytes
from edge_face.web.exports import accepted_format
from edge_face.web.schema import EnrolForm, EventsQuery, ForceForm, PeopleQuery
from edge_face.web.spec import query_of, texts_of

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
    with pytest.raises(RequestError, match="limit"):
        query_of(make_mocked_request("GET", f"/?limit={text}"), PeopleQuery)


def test_a_query_that_is_right_and_one_that_says_what_is_wrong() -> None:
    found = query_of(make_mocked_request("GET", "/?limit=7&status=PASS&unknown=1"), EventsQuery)
    assert (found.limit, found.status, found.since) == (7, "PASS", None)
    with pytest.raises(RequestError) as caught:
        query_of(make_mocked_request("GET", "/?status=maybe"), EventsQuery)
    assert caught.value.code == "bad_query"
    assert caught.value.message == "In the query: status: invalid enum value 'maybe'."


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "json"),
        ("*/*", "json"),
        ("text/html, text/csv;q=0.5", "csv"),
        ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "xlsx"),
    ],
)
def test_formats(accept: str, kind: str) -> None:
    assert accepted_format(make_mocked_request("GET", "/", headers={"Accept": accept})) == kind


def test_flags_in_forms() -> None:
    flags = [texts_of({"force": text}, ForceForm).force for text in ("1", "True", "on", "no", "")]
    assert flags == [True, True, True, False, False]
    assert not texts_of({}, ForceForm).force
    with pytest.raises(RequestError, match="The field force is yes or no"):
        texts_of({"force": "maybe"}, ForceForm)


def test_a_form_without_what_it_must_have() -> None:
    with pytest.raises(RequestError, match="The field name is missing") as caught:
        texts_of({"force": "1"}, EnrolForm)
    assert caught.value.code == "missing_field"
