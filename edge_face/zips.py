"""Photos out of a ZIP: one by one, in memory, within limits. Nothing is ever written to a path that a ZIP names."""

from __future__ import annotations

import io
import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from edge_face.errors import RequestError

MAX_MEMBERS = 5000
MAX_MEMBER_BYTES = 20 * 1024 * 1024
MAX_RATIO = 100
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


@dataclass(frozen=True, slots=True)
class Member:
    """A photo and whose it is, or the reason why the file is refused (`data` is empty then)."""

    file: str
    name: str
    data: bytes = b""
    refused: str = ""


def members(archive: bytes) -> Iterator[Member]:
    """Each file of the ZIP as a Member: `name.jpg`, or `name/1.jpg`. Raises RequestError when it is no ZIP at all."""
    try:
        opened = zipfile.ZipFile(io.BytesIO(archive))
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError):
        raise RequestError("This is not a ZIP file that can be read.", "bad_zip") from None
    with opened:
        infos = [info for info in opened.infolist() if not info.is_dir() and not _is_clutter(info.filename)]
        if len(infos) > MAX_MEMBERS:
            raise RequestError(f"The ZIP holds {len(infos)} files; {MAX_MEMBERS} are allowed.", "too_many_files")
        seen: set[str] = set()
        for info in infos:
            yield _member(opened, info, seen)


def _member(opened: zipfile.ZipFile, info: zipfile.ZipInfo, seen: set[str]) -> Member:
    name = person_name(PurePosixPath(info.filename))
    refused = _refusal(info, seen)
    seen.add(info.filename)
    if refused:
        return Member(info.filename, name, refused=refused)
    try:
        with opened.open(info) as file:
            data = file.read(MAX_MEMBER_BYTES + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, OSError) as error:
        return Member(info.filename, name, refused=f"it cannot be unpacked: {error}")
    if len(data) > MAX_MEMBER_BYTES:
        return Member(info.filename, name, refused=f"it is larger than {MAX_MEMBER_BYTES >> 20} MiB")
    return Member(info.filename, name, data)


def _refusal(info: zipfile.ZipInfo, seen: set[str]) -> str:
    path = PurePosixPath(info.filename)
    if path.is_absolute() or "\\" in info.filename or ".." in path.parts or ":" in path.parts[0]:
        return "its path leaves the ZIP"
    if len(path.parts) > 2:
        return "expected name.jpg or name/1.jpg"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "it is a link"
    if info.flag_bits & 0x1:
        return "it is encrypted"
    if info.filename in seen:
        return "the ZIP holds this name twice"
    if path.suffix.lower() == ".zip":
        return "a ZIP in a ZIP is not opened"
    if path.suffix.lower() not in SUFFIXES:
        return "it is not a photo by its name"
    if info.file_size > MAX_MEMBER_BYTES:
        return f"it is larger than {MAX_MEMBER_BYTES >> 20} MiB"
    if info.file_size > MAX_RATIO * max(info.compress_size, 1024):
        return "it is compressed suspiciously much"
    return ""


def person_name(path: PurePosixPath) -> str:
    """Whose photo a file is: its folder's name, else its own without the ending, unchanged."""
    return path.parts[-2] if len(path.parts) > 1 else path.stem


def _is_clutter(name: str) -> bool:
    """What macOS and Windows put beside the photos."""
    path = PurePosixPath(name)
    return "__MACOSX" in path.parts or path.name in (".DS_Store", "Thumbs.db") or path.name.startswith("._")
