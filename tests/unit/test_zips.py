"""ZIPs of photos, friendly and hostile."""

from __future__ import annotations

import io
import resource
import stat
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest

from edge_face import zips
from edge_face.errors import RequestError


def archive(*files: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # duplicate names are the point
        for name, data in files:
            packed.writestr(name, data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def opened(data: bytes) -> zips.Archive:
    return zips.Archive(io.BytesIO(data))


def test_names_come_from_files_or_folders_unchanged() -> None:
    found = list(opened(archive(("katya.jpg", b"1"), ("Zéro O'Neil/1.JPG", b"2"), ("名.前.png", b"3"))))
    assert [(member.name, member.data) for member in found] == [("katya", b"1"), ("Zéro O'Neil", b"2"), ("名.前", b"3")]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../evil.jpg", "leaves the ZIP"),
        ("/etc/evil.jpg", "leaves the ZIP"),
        ("a\\..\\evil.jpg", "leaves the ZIP"),
        ("C:/evil.jpg", "leaves the ZIP"),
        ("a/b/c.jpg", "expected name.jpg"),
        ("more.zip", "not opened"),
        ("readme.txt", "not a photo"),
        ("IMG_1.HEIC", "HEIC files are not read"),
        (".", "name is damaged"),
        ("//server/evil.jpg", "leaves the ZIP"),
        ("a/../../evil.jpg", "leaves the ZIP"),
        ("GOOD.JPG", "twice"),
        ("./good.jpg", "twice"),
    ],
)
def test_bad_members_are_refused_one_by_one(name: str, reason: str) -> None:
    good, bad = opened(archive(("good.jpg", b"1"), (name, b"2")))
    assert good.data == b"1"
    assert bad.data == b""
    assert reason in bad.refused


def test_links_are_refused() -> None:
    info = zipfile.ZipInfo("link.jpg")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    (member,) = opened(archive((info, b"/etc/passwd")))
    assert "link" in member.refused


def test_the_second_file_of_one_name_is_refused() -> None:
    first, second = opened(archive(("a.jpg", b"1"), ("a.jpg", b"2")))
    assert first.data == b"1"
    assert "twice" in second.refused


@pytest.mark.parametrize(
    ("first", "second"),
    [("Zoë.jpg", "Zoe\u0308.jpg"), ("Katya/1.jpg", "katya/1.JPG"), ("STRASSE.jpg", "straße.jpg")],
)
def test_names_that_are_one_file_on_other_systems_are_twice_the_same(first: str, second: str) -> None:
    kept, refused = opened(archive((first, b"1"), (second, b"2")))
    assert (kept.data, refused.data) == (b"1", b"")
    assert "twice" in refused.refused


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_a_bound_are_refused(method: int) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        packed.writestr("a.jpg", bytes(1000), method)
        packed.writestr("b.jpg", b"2")
    first, second = opened(out.getvalue())
    assert "unusual" in first.refused
    assert second.data == b"2"


def test_a_member_that_is_larger_than_it_says_is_refused() -> None:
    data = bytearray(archive(("a.jpg", bytes(200_000)), ("b.jpg", b"2")))
    for header, field in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = data.index(header) + field
        data[start : start + 4] = (1000).to_bytes(4, "little")
    first, second = opened(bytes(data))
    assert "unpacked" in first.refused
    assert second.data == b"2"


def test_members_too_large_alone_or_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zips, "MAX_MEMBER_BYTES", 1000)
    monkeypatch.setattr(zips, "MAX_TOTAL_BYTES", 2000)
    found = list(opened(archive(("large.jpg", bytes(1001)), *((f"{n}.jpg", bytes(400)) for n in range(4)))))
    assert "larger than" in found[0].refused
    assert [bool(member.data) for member in found[1:]] == [True, True, False, False]
    assert "unpacks to more than" in found[-1].refused


def test_a_directory_of_millions_is_refused_before_it_is_read() -> None:
    """Each entry would become an object in the process that decides."""
    entry = b"PK\x01\x02" + bytes(42)
    count = 200_000
    end = b"PK\x05\x06" + bytes(4) + b"\xff\xff" * 2 + (46 * count).to_bytes(4, "little") + bytes(6)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RequestError, match="too many entries"):
        opened(entry * count + end)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000  # KiB


def test_members_are_unpacked_one_by_one() -> None:
    data = archive(*((f"{number}.jpg", np.random.default_rng(number).bytes(4 << 20)) for number in range(8)))
    tracemalloc.start()
    for member in opened(data):
        assert len(member.data) == 4 << 20
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 24 << 20


def test_a_bomb_is_refused_without_unpacking() -> None:
    (member,) = opened(archive(("bomb.jpg", b"\0" * 15_000_000)))
    assert "suspiciously" in member.refused


def test_a_damaged_member_does_not_stop_the_rest() -> None:
    data = bytearray(archive(("a.jpg", b"some bytes that compress to something"), ("b.jpg", b"2")))
    start = data.index(b"a.jpg") + 5
    data[start + 4] ^= 0xFF
    first, second = opened(bytes(data))
    assert "unpacked" in first.refused
    assert second.data == b"2"


def test_encrypted_members_are_refused() -> None:
    data = bytearray(archive(("a.jpg", b"1")))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (member,) = opened(bytes(data))
    assert "encrypted" in member.refused


def test_clutter_of_other_systems_is_passed_over() -> None:
    assert [m.name for m in opened(archive(("__MACOSX/._a.jpg", b""), (".DS_Store", b""), ("a.jpg", b"1")))] == ["a"]


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"not a zip at all"])
def test_what_is_no_zip_is_an_error(data: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        list(opened(data))
    assert caught.value.code == "bad_zip"


def test_too_many_members_are_an_error() -> None:
    with pytest.raises(RequestError, match="5001 files"):
        list(opened(archive(*((f"{number}.jpg", b"") for number in range(zips.MAX_MEMBERS + 1)))))
