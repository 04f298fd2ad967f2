"""Enrol the people of another program's face_db.pkl (scripts/import-face-db)."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from edge_face import config, pickles
from edge_face.commands.session import open_people
from edge_face.errors import EdgeFaceError, RequestError


async def enrol_all(args: argparse.Namespace) -> int:
    try:
        data = args.file.read_bytes()
    except OSError as error:
        raise RequestError(f"{args.file} cannot be read: {error.strerror}") from None
    known = pickles.face_db(data)
    refused = 0
    async with open_people(config.load(args.config)) as people:
        for name, encodings in known.items():
            try:
                await people.enrol_encodings(name, encodings, force=args.force)
            except EdgeFaceError as error:
                refused += 1
                print(f"refused {name!r}: {error.message}", file=sys.stderr)
    print(f"enrolled {len(known) - refused} of {len(known)} people")
    return 1 if refused or not known else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/import-face-db", description=__doc__)
    parser.add_argument("--config", type=Path, help="enrol into this configuration's database")
    parser.add_argument("--force", action="store_true", help="also faces that would pass as somebody else")
    parser.add_argument("file", type=Path, help="the pickle")
    try:
        return asyncio.run(enrol_all(parser.parse_args()))
    except EdgeFaceError as error:
        print(f"import-face-db: {error.message}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
