"""`edge-face enroll`, `people`, `remove` and `recognize`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from edge_face import config, zips
from edge_face.commands.session import open_people, open_store
from edge_face.errors import EdgeFaceError, ImageError, RequestError
from edge_face.people import Still
from edge_face.settings import Config
from edge_face.zips import Member

_BAR = 30


def enroll(args: argparse.Namespace) -> int:
    configured = config.load(args.config)
    if args.zip or args.dir:
        if args.name or args.external_id:
            print("edge-face enroll: --zip and --dir take the names from the files (see --help)", file=sys.stderr)
            return 2
        files = list(zips.members(args.zip.read_bytes())) if args.zip else list(_folder(args.dir))
        return asyncio.run(_enroll_many(configured, files, force=args.force))
    if not args.name or not args.images:
        print("edge-face enroll: a NAME and at least one IMAGE, or --zip or --dir (see --help)", file=sys.stderr)
        return 2
    return asyncio.run(_enroll_one(configured, args))


async def _enroll_one(configured: Config, args: argparse.Namespace) -> int:
    images = [path.read_bytes() for path in args.images]
    async with open_people(configured) as people:
        person = await people.enrol(args.name, images, args.external_id, force=args.force)
    print(f"enrolled {person.name} (id {person.id}, {_count(person.faces, 'face')})")
    return 0


async def _enroll_many(configured: Config, files: list[Member], *, force: bool) -> int:
    refused = 0
    async with open_people(configured) as people:
        done = 0
        async for report in people.enrol_members(files, force=force):
            done += 1
            if report.error:
                refused += 1
                _clear_bar()
                print(f"refused {report.file}: {report.message}", file=sys.stderr)
            _show_bar(done, len(files))
    _clear_bar()
    print(f"enrolled {_count(done - refused, 'photo')}, refused {refused}")
    return 1 if refused or not files else 0


def _folder(folder: Path) -> Iterator[Member]:
    """The photos of a folder, as a ZIP's would be."""
    if not folder.is_dir():
        raise RequestError(f"There is no folder {folder}")
    for path in sorted((*folder.glob("*"), *folder.glob("*/*"))):
        if not path.is_file() or path.name.startswith("."):
            continue
        relative = PurePosixPath(path.relative_to(folder).as_posix())
        name = zips.person_name(relative)
        if path.suffix.lower() not in zips.SUFFIXES:
            yield Member(str(relative), name, refused="it is not a photo by its name")
        elif path.stat().st_size > zips.MAX_MEMBER_BYTES:
            yield Member(str(relative), name, refused=f"it is larger than {zips.MAX_MEMBER_BYTES >> 20} MiB")
        else:
            yield Member(str(relative), name, path.read_bytes())


def people(args: argparse.Namespace) -> int:
    store = open_store(config.load(args.config))
    try:
        enrolled = store.people().items
    finally:
        store.close()
    if args.json:
        fields = ("id", "name", "external_id", "faces", "created_at")
        print(
            json.dumps([{field: getattr(person, field) for field in fields} for person in enrolled], ensure_ascii=False)
        )
        return 0
    for person in enrolled:
        external = f", {person.external_id}" if person.external_id else ""
        print(f"{person.name} (id {person.id}{external}, {_count(person.faces, 'face')})")
    if not enrolled:
        print("nobody is enrolled; try: edge-face enroll NAME photo.jpg")
    return 0


def remove(args: argparse.Namespace) -> int:
    store = open_store(config.load(args.config))
    try:
        person = store.remove(args.person)
    finally:
        store.close()
    print(f"removed {person.name} (id {person.id})")
    return 0


def recognize(args: argparse.Namespace) -> int:
    return asyncio.run(_recognize(config.load(args.config), args.images, as_json=args.json))


async def _recognize(configured: Config, files: Iterable[str], *, as_json: bool) -> int:
    failed = False
    async with open_people(configured) as people:
        for file in files:
            try:
                still = await people.recognise(_read(file))
            except ImageError as error:
                failed = True
                _print_error(file, error, as_json=as_json)
            else:
                _print_still(file, still, as_json=as_json)
    return 1 if failed else 0


def _read(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ImageError(f"The file cannot be read: {error.strerror}.", "unreadable_file") from None


def _print_error(file: str, error: EdgeFaceError, *, as_json: bool) -> None:
    if as_json:
        _print_json({"file": file, "error": error.code, "message": error.message})
    else:
        print(f"{file}: {error.message}", file=sys.stderr)


def _print_still(file: str, still: Still, *, as_json: bool) -> None:
    if as_json:
        _print_json({"file": file, **still.payload()})
        return
    for face in still.faces:
        distance = "" if face.match.distance is None else f", distance {face.match.distance:.2f}"
        who = face.person.name if face.person else face.reason
        print(f"{file}: {face.status} {who}{distance}, box {face.face.box.as_list()}")
    if not still.faces:
        print(f"{file}: no face")


def _print_json(body: dict[str, Any]) -> None:
    print(json.dumps(body, ensure_ascii=False), flush=True)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _show_bar(done: int, total: int) -> None:
    if sys.stderr.isatty():
        filled = _BAR * done // max(1, total)
        print(f"\r[{'#' * filled}{'.' * (_BAR - filled)}] {done}/{total}", end="", file=sys.stderr, flush=True)


def _clear_bar() -> None:
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
