"""`edge-face import-ids`."""

from __future__ import annotations

import argparse
import sys

from edge_face import config, idlists
from edge_face.commands.output import shown
from edge_face.commands.session import open_store
from edge_face.errors import ConflictError, NotFoundError, RequestError
from edge_face.events import Person
from edge_face.idlists import IdRow
from edge_face.names import clean_external_id, key_text
from edge_face.store import Changes, Store


def import_ids(args: argparse.Namespace) -> int:
    """A line per row. A refused one never stops the rest."""
    rows = idlists.read(args.file)
    store = open_store(config.load(args.config))
    refused = 0
    given: dict[str, IdRow] = {}
    try:
        for row in rows:
            try:
                person = _give(store, row, given)
            except (RequestError, NotFoundError, ConflictError) as error:
                refused += 1
                said = f"refused row {row.number} ({row.name or 'no name'}): {error.message}"
                print(shown(said), file=sys.stderr)
            else:
                print(f"row {row.number}: {person.name} has the id {person.external_id}")
    finally:
        store.close()
    print(f"imported {len(rows) - refused} of {len(rows)} ids, refused {refused}")
    return 1 if refused or not rows else 0


def _give(store: Store, row: IdRow, given: dict[str, IdRow]) -> Person:
    external_id = clean_external_id(row.external_id)
    if not row.name or external_id is None:
        raise RequestError(f"The {'id' if row.name else 'name'} is missing")
    person = _find(store, row.name)
    before = given.setdefault(person.id, row)
    if before.external_id != row.external_id:
        raise ConflictError(f"Row {before.number} gave {person.name} the id {before.external_id}")
    if person.external_id == external_id:
        return person
    return store.update_person(person.id, Changes(external_id=external_id), "id")


def _find(store: Store, name: str) -> Person:
    """By the exact name, else by the only one that differs in case alone. Raises NotFoundError, ConflictError."""
    exact = store.person(name, "name")
    if exact is not None:
        return exact
    wanted = key_text(name).casefold()
    alike = [person for person in store.people(name).items if person.name.casefold() == wanted]
    if not alike:
        raise NotFoundError(f"Nobody is enrolled as {name}")
    if len(alike) > 1:
        raise ConflictError(f"{' and '.join(person.name for person in alike)} are written alike")
    return alike[0]
