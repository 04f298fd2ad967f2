"""A folder of photos: read by several processes, enrolled as if each came alone, and shown on a terminal."""

from __future__ import annotations

import asyncio
import importlib
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_face import settings
from edge_face.clock import SystemClock
from edge_face.database import StoreThread
from edge_face.people import FileReport, People
from edge_face.photo_pool import PhotoPool
from edge_face.roster import StoreRoster
from edge_face.store import GalleryRows, Store
from edge_face.supervisor import PhotoProcess
from edge_face.zips import Member
from tests.support.daemon import edge_face, write_config
from tests.support.photos import astronaut, hopper, jpeg, side_by_side

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def members() -> list[Member]:
    """Many are refused, each for a reason of its own; two only because of who came before."""
    eileen, grace = astronaut(), hopper()
    return [
        Member("1.jpg", "Eileen", jpeg(eileen)),
        Member("2.jpg", "Grace", jpeg(grace)),
        Member("3.jpg", "Somebody", jpeg(np.ascontiguousarray(eileen[:, ::-1]))),  # would pass as Eileen
        Member("4.heic", "Heic", refused="HEIC files are not read"),
        Member("5.jpg", "Eileen", jpeg(eileen, 80)),
        Member("6.jpg", "Grace", jpeg(eileen, 70)),  # would pass as Eileen, too
        Member("7.jpg", "Two", jpeg(side_by_side(eileen, np.ascontiguousarray(eileen[:, ::-1])))),
        Member("8.jpg", "Broken", b"no picture"),
        Member("9.jpg", " ", jpeg(eileen)),
        Member("10.jpg", "Grace", jpeg(grace, 80)),
    ]


async def enrolled(photos: PhotoPool | PhotoProcess, database: Path) -> tuple[list[FileReport], GalleryRows]:
    thread = StoreThread()
    store = Store(database, SystemClock())
    try:
        people = People(photos, StoreRoster(store, thread), settings.Decision())
        reports = [report async for report in people.enrol_members(members())]
        return reports, store.gallery()
    finally:
        await photos.close()
        await thread.close()
        store.close()


def test_side_by_side_is_as_one_by_one(tmp_path: Path) -> None:
    options = settings.Engine()
    pool = PhotoPool(options, "error", 1000, thumbnails=False)
    together, rows = asyncio.run(enrolled(pool, tmp_path / "together.db"))
    if (os.cpu_count() or 1) > 1:
        assert pool.at_once > 1
    alone, expected = asyncio.run(enrolled(PhotoProcess(options, "error"), tmp_path / "alone.db"))
    assert together == alone
    codes = {report.file: report.error for report in together}
    assert codes == {
        "1.jpg": None,
        "2.jpg": None,
        "3.jpg": "duplicate_person",
        "4.heic": "refused",
        "5.jpg": None,
        "6.jpg": "duplicate_person",
        "7.jpg": "several_faces",
        "8.jpg": "bad_image",
        "9.jpg": "bad_name",
        "10.jpg": None,
    }
    assert [(person.id, person.faces) for person in rows.persons] == [("eileen", 2), ("grace", 2)]
    assert np.abs(rows.matrix - expected.matrix).max() < 1e-5


@pytest.mark.parametrize("terminal", [True, False])
def test_the_bar_is_for_terminals(terminal: bool, tmp_path: Path, eileen: bytes, grace: bytes) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, data in {"Eileen.jpg": eileen, "Grace.jpg": grace, "notes.txt": b"hello"}.items():
        (folder / name).write_bytes(data)
    config = write_config(tmp_path, {})
    if not terminal:
        done = edge_face("enroll", "--dir", folder, config=config)
        assert done.stderr.splitlines() == ["refused notes.txt: it is not a photo by its name"]
        assert done.stdout == "enrolled 2 photos, refused 1\n"
        return
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_face", "enroll", "--dir", str(folder), "--config", str(config)],
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(ours, 4096):
            seen += chunk
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(ours)
    assert process.communicate(timeout=30)[0] == b"enrolled 2 photos, refused 1\n"
    bars = [part for part in seen.decode().split("\r\033[K") if part.startswith("[")]
    assert [bar.rpartition(" ")[2] for bar in bars] == ["0/3", "1/3", "2/3", "3/3"]
    assert bars[0].startswith("[" + 30 * ".")
    assert bars[-1].startswith("[" + 30 * "#")
    assert seen.endswith(b"\r\033[K")  # nothing of it stays


@pytest.mark.slow
def test_a_photo_costs_a_fraction_of_what_face_recognition_takes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processor time, so that others on the machine do not count; times the processors, it is the throughput."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    enrolment = importlib.import_module("enrolment")
    photos = enrolment.photos_of(data / "lfw", 360)
    # Both are enough for four processes, whose start is left out of the difference.
    few, many, theirs = enrolment.compared(photos, 20, [160, 360], tmp_path)
    assert many.enrolled > 320
    each_ms = (many.cpu_ms_each * many.photos - few.cpu_ms_each * few.photos) / (many.photos - few.photos)
    print(f"{each_ms:.1f} ms beside {theirs.cpu_ms_each:.1f} ms for a photo more")
    assert theirs.cpu_ms_each / each_ms > 3
    (large, others) = enrolment.compared(enrolment.enlarged(photos[:60], tmp_path / "large"), 3, [60], tmp_path)
    assert others.cpu_ms_each / large.cpu_ms_each > 3.5
