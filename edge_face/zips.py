"""Photos out of a ZIP: one by one, in memory, within limits. Nothing is ever written to a path that a ZIP names."""

from __future__ import annotations

import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath, PurePosixPath
from typing import BinaryIO

from edge_face.errors import RequestError

MAX_ZIP_BYTES = 256 * 1024 * 1024
MAX_MEMBERS = 5000
MAX_MEMBER_BYTES = 20 * 1024 * 1024
MAX_TOTAL_BYTES = 1024 * 1024 * 1024
"""Of all members unpacked: photos hardly shrink in a ZIP, so this is four times the largest honest one."""
MAX_RATIO = 100
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})

_ENTRY = b"PK\x01\x02"
_MAX_ENTRIES = 4 * MAX_MEMBERS
"""With folders and what other systems put beside the photos."""
_STEP = 1 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Of the others (bzip2, LZMA) Python unpacks a whole block at once, however large."""
_BAD_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    RuntimeError,
    OSError,
    ValueError,
    LookupError,
    OverflowError,
)
"""What zipfile raises for damaged files; RuntimeError also for a compression that it does not know."""


@dataclass(frozen=True, slots=True)
class Member:
    """A photo and whose it is, or the reason why the file is refused (`data` is empty then)."""

    file: str
    name: str
    data: bytes = b""
    refused: str = ""


class Archive:
    """A ZIP's files as Members, in their order: `name.jpg`, or `name/1.jpg`; unpacked while they are iterated."""

    def __init__(self, file: BinaryIO) -> None:
        """`file` stays the caller's to close. Raises RequestError when it is no ZIP at all (`bad_zip`), or one of too
        many files.
        """
        if not _is_within(file, _MAX_ENTRIES):
            raise RequestError(f"The ZIP holds too many entries; {MAX_MEMBERS} files are allowed.", "too_many_files")
        try:
            self._zip = zipfile.ZipFile(file)
        except _BAD_ZIP:
            raise RequestError("This is not a ZIP file that can be read.", "bad_zip") from None
        self._infos = [info for info in self._zip.infolist() if not _is_clutter(info.filename)]
        if len(self._infos) > MAX_MEMBERS:
            raise RequestError(f"The ZIP holds {len(self._infos)} files; {MAX_MEMBERS} are allowed.", "too_many_files")

    def __len__(self) -> int:
        return len(self._infos)

    def __iter__(self) -> Iterator[Member]:
        seen: set[str] = set()
        total = 0
        for info in self._infos:
            name = person_name(PurePosixPath(info.filename))
            total += info.file_size
            refused = _refusal(info, seen)
            if not refused and total > MAX_TOTAL_BYTES:
                refused = f"the ZIP unpacks to more than {MAX_TOTAL_BYTES >> 20} MiB"
            seen.add(_same_file(info.filename))
            yield Member(info.filename, name, refused=refused) if refused else self._unpacked(info, name)

    def _unpacked(self, info: zipfile.ZipInfo, name: str) -> Member:
        try:
            with self._zip.open(info) as file:
                data = file.read(MAX_MEMBER_BYTES + 1)
        except _BAD_ZIP as error:
            return Member(info.filename, name, refused=f"it cannot be unpacked: {error}")
        return Member(info.filename, name, data)


def _is_within(file: BinaryIO, entries: int) -> bool:
    """Whether a ZIP has at most so many entries. Python would first make an object of each, and hold up decisions."""
    file.seek(0)
    before = b""
    while piece := file.read(_STEP):
        entries -= (before + piece).count(_ENTRY)
        before = piece[1 - len(_ENTRY) :]
    return entries >= 0


def _refusal(info: zipfile.ZipInfo, seen: set[str]) -> str:
    path = PurePosixPath(info.filename)
    if not path.parts or "\0" in info.orig_filename:
        return "its name is damaged"
    if path.is_absolute() or "\\" in info.orig_filename or ".." in path.parts or ":" in path.parts[0]:
        return "its path leaves the ZIP"
    if len(path.parts) > 2:
        return "expected name.jpg or name/1.jpg"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "it is a link"
    if info.flag_bits & 0x1:
        return "it is encrypted"
    if _same_file(info.filename) in seen:
        return "the ZIP holds this name twice (capitals do not tell files apart)"
    if path.suffix.lower() == ".zip":
        return "a ZIP in a ZIP is not opened"
    if refused := refusal_by_name(path):
        return refused
    if info.file_size > MAX_MEMBER_BYTES:
        return f"it is larger than {MAX_MEMBER_BYTES >> 20} MiB"
    if info.file_size > MAX_RATIO * max(info.compress_size, 1024):
        return "it is compressed suspiciously much"
    if info.compress_type not in _METHODS:
        return "it is compressed in an unusual way; use the usual one (deflate)"
    return ""


def refusal_by_name(path: PurePath) -> str:
    """Why a file is no photo that is read, as far as its ending tells."""
    ending = path.suffix.lower()
    if ending in SUFFIXES:
        return ""
    if ending in (".heic", ".heif", ".avif"):
        return f"{ending[1:].upper()} files are not read; save it as JPEG or PNG"
    return "it is not a photo by its name"


def _same_file(name: str) -> str:
    """Equal for names that would be one file on Windows or macOS: who packed them there cannot have meant two."""
    return unicodedata.normalize("NFC", str(PurePosixPath(name))).casefold()


def person_name(path: PurePosixPath) -> str:
    """Whose photo a file is: its folder's name, else its own without the ending, unchanged."""
    return path.parts[-2] if len(path.parts) > 1 else path.stem


def _is_clutter(name: str) -> bool:
    """Folders, and what macOS and Windows put beside the photos."""
    path = PurePosixPath(name)
    return (
        name.endswith("/")
        or "__MACOSX" in path.parts
        or path.name in (".DS_Store", "Thumbs.db")
        or path.name.startswith("._")
    )
