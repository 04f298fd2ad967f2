"""ZIPs of photos, friendly and hostile."""

from __future__ import annotations

import io
import stat
import warnings
import zipfile

import pytest

from edge_face import zips
from edge_face.errors import RequestError


def archive(*files: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # duplicate names are the point
        for name, data in files:
            opened.writestr(name, data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def test_names_come_from_files_or_folders_unchanged() -> None:
    found = list(zips.Archive(archive(("katya.jpg", b"1"), ("Zéro O'Neil/1.JPG", b"2"), ("名.前.png", b"3"))))
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
    ],
)
def test_bad_members_are_refused_one_by_one(name: str, reason: str) -> None:
    good, bad = zips.Archive(archive(("good.jpg", b"1"), (name, b"2")))
    assert good.data == b"1"
    assert bad.data == b""
    assert reason in bad.refused


def test_links_are_refused() -> None:
    info = zipfile.ZipInfo("link.jpg")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    (member,) = zips.Archive(archive((info, b"/etc/passwd")))
    assert "link" in member.refused


def test_the_second_file_of_one_name_is_refused() -> None:
    first, second = zips.Archive(archive(("a.jpg", b"1"), ("a.jpg", b"2")))
    assert first.data == b"1"
    assert "twice" in second.refused


def test_a_bomb_is_refused_without_unpacking() -> None:
    (member,) = zips.Archive(archive(("bomb.jpg", b"\0" * 15_000_000)))
    assert "suspiciously" in member.refused


def test_a_damaged_member_does_not_stop_the_rest() -> None:
    data = bytearray(archive(("a.jpg", b"some bytes that compress to something"), ("b.jpg", b"2")))
    start = data.index(b"a.jpg") + 5
    data[start + 4] ^= 0xFF
    first, second = zips.Archive(bytes(data))
    assert "unpacked" in first.refused
    assert second.data == b"2"


def test_encrypted_members_are_refused() -> None:
    data = bytearray(archive(("a.jpg", b"1")))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (member,) = zips.Archive(bytes(data))
    assert "encrypted" in member.refused


def test_clutter_of_other_systems_is_passed_over() -> None:
    assert [m.name for m in zips.Archive(archive(("__MACOSX/._a.jpg", b""), (".DS_Store", b""), ("a.jpg", b"1")))] == [
        "a"
    ]


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"not a zip at all"])
def test_what_is_no_zip_is_an_error(data: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        list(zips.Archive(data))
    assert caught.value.code == "bad_zip"


def test_too_many_members_are_an_error() -> None:
    with pytest.raises(RequestError, match="5001 files"):
        list(zips.Archive(archive(*((f"{number}.jpg", b"") for number in range(zips.MAX_MEMBERS + 1)))))
