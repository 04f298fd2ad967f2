"""The limits that docs/api.md names are those of the code."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from edge_face import memory, photos, queries, zips
from edge_face.supervisor import PhotoProcess
from edge_face.web import auth, connections, forms, mjpeg, people, spec, stream, uploads

ROOT = Path(__file__).parents[2]
MIB, KIB, MEGA = 1 << 20, 1 << 10, 1_000_000
PHOTO_S = inspect.signature(PhotoProcess).parameters["timeout_s"].default

LIMITS: dict[str, tuple[float, ...]] = {
    "a photo's file": (forms.MAX_IMAGE_BYTES / MIB,),
    "a photo's pixels": (photos.MAX_PIXELS / MEGA, photos.MAX_JPEG_PIXELS / MEGA),
    "reading a photo": (PHOTO_S, memory.PHOTO / MIB),
    "photos of a request": (forms.MAX_IMAGES, forms.MAX_IMAGES_BYTES / MIB),
    "a form": (forms.MAX_FIELDS, forms.MAX_TEXT_BYTES / KIB, forms.MAX_URLENCODED_BYTES / MIB),
    "a JSON body": (spec.MAX_JSON_BYTES / KIB,),
    "a ZIP": (zips.MAX_ZIP_BYTES / MIB,),
    "files in a ZIP": (zips.MAX_MEMBERS,),
    "a file in a ZIP": (zips.MAX_MEMBER_BYTES / MIB, zips.MAX_RATIO, 1, zips.MAX_TOTAL_BYTES / MIB / 1024),
    "requests with photos": (people.AT_ONCE, people.WAITING, forms.WAIT_S),
    "items of a page": (queries.MAX_LIMIT,),
    "wrong tokens of an address": (auth.Delays.WAITING,),
    "viewers of `/ws/face-stream`": (stream.MAX_VIEWERS,),
    "viewers of `/streaming`": (mjpeg.MAX_VIEWERS,),
    "clients of `/ws`": (uploads.MAX_CLIENTS,),
    "a message to `/ws`": (forms.MAX_IMAGE_BYTES / MIB,),
    "a viewer, or client of `/ws`, that takes nothing": (stream.STALLED_S,),
    "open connections": (connections.MAX_OPEN, connections.MAX_OF_NETWORK),
    "a request's head": (connections.HEAD_S, connections.MAX_HEAD_BYTES / KIB),
    "a request's body": (forms.BODY_S, forms.ZIP_BODY_S, forms.BODY_GRACE_S, forms.LEAST_BYTES_PER_S / KIB),
    "an answer of which nothing is taken": (connections.STALLED_S,),
    "an idle connection": (connections.IDLE_S,),
    "a client whose machine answers no more": (connections.DEAD_S, connections.DEAD_S + connections._PROBE_S),
}


@pytest.mark.parametrize("what", LIMITS)
def test_a_limit_is_as_the_page_says(what: str) -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    rows = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \| [^|]+ \|$", page, re.MULTILINE))
    assert [float(number) for number in re.findall(r"\b\d+", rows[what])] == list(LIMITS[what])
