"""`edge-face enroll`, `people`, `remove` and `recognize`."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path, PurePosixPath
from typing import Any

from edge_face import config, dossier, zips
from edge_face.backups import Backups
from edge_face.commands.output import clear_bar, show_bar, shown
from edge_face.commands.session import open_people, open_store
from edge_face.errors import EdgeFaceError, ImageError, NotFoundError, RequestError
from edge_face.events import Person
from edge_face.folders import whole_file
from edge_face.people import Still
from edge_face.queries import local_time
from edge_face.settings import Config
from edge_face.zips import Member


def enroll(args: argparse.Namespace) -> int:
    configured = config.load(args.config)
    if args.zip or args.dir:
        if args.name or args.external_id:
            print("edge-face enroll: --zip and --dir take the names from the files (see --help)", file=sys.stderr)
            return 2
        with _archive(args.zip) if args.zip else nullcontext(_Folder(args.dir)) as files:
            return asyncio.run(_enroll_many(configured, files, force=args.force))
    if not args.name or not args.images:
        print("edge-face enroll: a NAME and at least one IMAGE, or --zip or --dir (see --help)", file=sys.stderr)
        return 2
    return asyncio.run(_enroll_one(configured, args))


async def _enroll_one(configured: Config, args: argparse.Namespace) -> int:
    images = [_photo_of(path) for path in args.images]
    async with open_people(configured) as people:
        person = await people.enrol(args.name, images, args.external_id, force=args.force)
    print(f"enrolled {person.name} (id {person.id}, {_count(person.faces, 'face')})")
    return 0


async def _enroll_many(configured: Config, files: zips.Archive | _Folder, *, force: bool) -> int:
    refused = done = 0
    async with open_people(configured, len(files)) as people:
        show_bar(0, len(files))
        async for report in people.enrol_members(files, force=force):
            done += 1
            if report.error:
                refused += 1
                clear_bar()
                print(f"refused {shown(report.file)}: {shown(report.message)}", file=sys.stderr)
            show_bar(done, len(files))
    clear_bar()
    print(f"enrolled {_count(done - refused, 'photo')}, refused {refused}")
    return 1 if refused or not done else 0


@contextmanager
def _archive(path: Path) -> Iterator[zips.Archive]:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > zips.MAX_ZIP_BYTES:
            limit = zips.MAX_ZIP_BYTES >> 20
            raise RequestError(f"{path} is larger than {limit} MiB; unpack it and use --dir", "too_large")
        yield zips.Archive(file)


class _Folder:
    """The photos of a folder, as a ZIP's would be: read one by one, while they are iterated."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise RequestError(f"There is no folder {folder}")
        found = sorted((*folder.glob("*"), *folder.glob("*/*")))
        self._folder = folder
        self._paths = [path for path in found if not path.name.startswith(".") and not path.is_dir()]

    def __len__(self) -> int:
        return len(self._paths)

    def __iter__(self) -> Iterator[Member]:
        for path in self._paths:
            relative = PurePosixPath(path.relative_to(self._folder).as_posix())
            name = zips.person_name(relative)
            if refused := zips.refusal_by_name(path):
                yield Member(str(relative), name, refused=refused)
            elif not path.is_file():
                yield Member(str(relative), name, refused="it is not a file")
            else:
                try:
                    yield Member(str(relative), name, _photo(path))
                except ImageError as error:
                    yield Member(str(relative), name, refused=error.message)


def _photo(path: Path) -> bytes:
    """A photo's bytes; a device or a pipe is read no further than a photo may be long. Raises ImageError."""
    try:
        with path.open("rb") as file:
            data = file.read(zips.MAX_MEMBER_BYTES + 1)
    except OSError as error:
        raise ImageError(f"The file cannot be read: {error.strerror}.", "unreadable_file") from None
    if len(data) > zips.MAX_MEMBER_BYTES:
        raise ImageError(f"The file is larger than {zips.MAX_MEMBER_BYTES >> 20} MiB.", "too_large")
    return data


def _photo_of(path: Path) -> bytes:
    """The same for one of several photos that stand or fall together, so the error names it."""
    try:
        return _photo(path)
    except ImageError as error:
        raise ImageError(f"{path}: {error.message}", error.code) from None


def people(args: argparse.Namespace) -> int:
    store = open_store(config.load(args.config))
    try:
        enrolled = store.people().items
    finally:
        store.close()
    if args.json:
        print(json.dumps([dataclasses.asdict(person) for person in enrolled], ensure_ascii=False))
        return 0
    for person in enrolled:
        external = f", {person.external_id}" if person.external_id else ""
        rules = f": {', '.join(_rules(person))}" if _rules(person) else ""
        print(f"{person.name} (id {person.id}{external}, {_count(person.faces, 'face')}){rules}")
    if not enrolled:
        print("nobody is enrolled; try: edge-face enroll NAME photo.jpg")
    return 0


def _rules(person: Person) -> list[str]:
    """What keeps the person out, and the group; times are the local ones of this box."""
    found = ["blocked"] if person.blocked else []
    if person.valid_from is not None:
        found.append(f"from {local_time(person.valid_from)}")
    if person.valid_until is not None:
        found.append(f"until {local_time(person.valid_until)}")
    return found + ([f"group {person.group}"] if person.group else [])


def remove(args: argparse.Namespace) -> int:
    configured = config.load(args.config)
    store = open_store(configured)
    try:
        person = store.remove(args.person)
    finally:
        store.close()
    print(f"removed {person.name} (id {person.id})")
    if configured.storage.backups_folder:
        Backups(store.path, Path(configured.storage.backups_folder)).scrub()
    return 0


def export(args: argparse.Namespace) -> int:
    store = open_store(config.load(args.config))
    try:
        person = store.person(args.person)
        if person is None:
            raise NotFoundError(f"Nobody is enrolled as {args.person}")
        with whole_file(args.file) as file:
            dossier.write(store, person.id, file)
    finally:
        store.close()
    print(f"wrote {args.file} ({args.file.stat().st_size} bytes): all that is stored of {person.name} (id {person.id})")
    return 0


def recognize(args: argparse.Namespace) -> int:
    return asyncio.run(_recognize(config.load(args.config), args.images, as_json=args.json))


async def _recognize(configured: Config, files: Iterable[str], *, as_json: bool) -> int:
    failed = False
    async with open_people(configured) as people:
        for file in files:
            try:
                still = await people.recognise(_photo(Path(file)))
            except ImageError as error:
                failed = True
                _print_error(file, error, as_json=as_json)
            else:
                _print_still(file, still, as_json=as_json)
    return 1 if failed else 0


def _print_error(file: str, error: EdgeFaceError, *, as_json: bool) -> None:
    if as_json:
        _print_json({"file": file, "error": error.code, "message": error.message})
    else:
        print(f"{shown(file)}: {error.message}", file=sys.stderr)


def _print_still(file: str, still: Still, *, as_json: bool) -> None:
    if as_json:
        _print_json({"file": file, **still.payload()})
        return
    for face in still.faces:
        distance = "" if face.match.distance is None else f", distance {face.match.distance:.2f}"
        who = face.person.name if face.person else face.reason
        who += f" ({face.reason})" if face.person and face.status == "REJECT" else ""
        print(f"{shown(file)}: {face.status} {who}{distance}, box {face.face.box.as_list()}")
    if not still.faces:
        print(f"{shown(file)}: no face")


def _print_json(body: dict[str, Any]) -> None:
    print(json.dumps(body, ensure_ascii=False), flush=True)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
