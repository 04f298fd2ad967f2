"""People and gallery, on real SQLite files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_face.errors import ConflictError, NotFoundError, RequestError, StoreError
from edge_face.events import Encoding, Person
from edge_face.store import Changes, Store
from tests.support.clock import HandClock


def face(seed: int) -> Encoding:
    return np.random.default_rng(seed).normal(0, 0.1, 128).astype(np.float32)


def test_a_person_is_made_once_and_gains_faces(store: Store) -> None:
    first = store.add_faces("Katya", [face(1)], "123")
    assert (first.id, first.name, first.external_id, first.faces) == ("katya", "Katya", "123", 1)
    again = store.add_faces(" Katya ", [face(2), face(3)])
    assert (again.id, again.external_id, again.faces) == ("katya", "123", 3)
    assert store.person("katya") == store.person("Katya") == again
    assert store.person("nobody") is None


def test_names_are_compared_in_their_composed_form(store: Store) -> None:
    store.add_faces("Zoe\u0301", [face(1)])
    assert store.add_faces("Zo\u00e9", [face(2)]).faces == 2
    assert store.person("Zoe\u0301") == store.person("Zo\u00e9")


def test_an_external_id_belongs_to_one_person(store: Store) -> None:
    store.add_faces("Katya", [face(1)], "123")
    store.add_faces("Katya", [face(2)], "123")
    with pytest.raises(ConflictError, match="Katya"):
        store.add_faces("Zero", [face(3)], "123")
    assert store.person("Zero") is None, "nothing of the refused person is kept"
    store.update_person("katya", Changes(external_id=""))
    assert store.add_faces("Zero", [], "123").external_id == "123"


@pytest.mark.parametrize(
    "bad",
    [
        np.full(128, np.nan),
        np.full(128, np.inf),
        np.full(128, 1e300),
        np.zeros(127),
        np.zeros((1, 128)),
        np.zeros(0),
    ],
    ids=["nan", "infinite", "too large", "short", "matrix", "empty"],
)
def test_a_bad_encoding_is_refused_and_so_is_all_that_came_with_it(store: Store, bad: Encoding) -> None:
    with pytest.raises(ValueError, match="an encoding"):
        store.add_faces("Katya", [face(1), bad])
    assert store.people().items == []


def test_ids_are_unique_and_never_used_again(store: Store) -> None:
    assert store.add_faces("Anna Li", []).id == "anna-li"
    assert store.add_faces("anna li", []).id == "anna-li-2"
    assert store.add_faces("张伟", []).id == "person"
    assert store.add_faces("王芳", []).id == "person-2"
    store.remove("anna-li-2")
    store.remove("Anna Li")
    assert store.add_faces("Anna Li", []).id == "anna-li-3"


def test_a_key_that_means_two_people_removes_neither(store: Store) -> None:
    store.add_faces("Katya", [])
    assert store.add_faces("katya", []).id == "katya-2"
    with pytest.raises(ConflictError) as caught:
        store.remove("katya")
    assert caught.value.code == "ambiguous"
    assert store.remove("katya", by="name").id == "katya-2"
    assert store.remove("katya", by="id").name == "Katya"


def test_a_new_id_is_never_somebody_else_s_name(store: Store) -> None:
    store.add_faces("Anna", [])
    store.update_person("anna", Changes(name="katya"))
    assert store.add_faces("Katya", []).id == "katya-2"
    assert store.remove("katya").id == "anna"


def test_removal_takes_the_templates_along(store: Store, path: Path) -> None:
    secret = face(42)
    store.add_faces("Katya", [secret])
    store.add_faces("Zero", [face(2)])
    assert store.remove("Katya").faces == 1
    assert [person.name for person in store.gallery().persons] == ["Zero"]
    with pytest.raises(NotFoundError):
        store.remove("Katya")
    remains = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert secret.tobytes() not in remains, "the biometric data is overwritten in the file and gone from the log"
    assert face(2).tobytes() in remains


def test_one_face_can_be_removed(store: Store) -> None:
    store.add_faces("Katya", [face(1), face(2)])
    first, second = store.faces("katya")
    assert store.remove_face("katya", first.id).faces == 1
    assert store.faces("katya") == [second]
    np.testing.assert_array_equal(store.gallery().matrix, [face(2)])
    store.add_faces("Zero", [])
    for person, number in (("katya", first.id), ("zero", second.id), ("nobody", 1)):
        with pytest.raises(NotFoundError):
            store.remove_face(person, number)


def test_a_person_can_be_renamed_and_keeps_the_id(store: Store) -> None:
    store.add_faces("Katya", [face(1)])
    store.add_faces("Zero", [], "9")
    assert store.update_person("Katya", Changes(name="Katya Petrova", external_id="8")).id == "katya"
    with pytest.raises(ConflictError):
        store.update_person("katya", Changes(name="Zero"))
    with pytest.raises(ConflictError):
        store.update_person("katya", Changes(external_id="9"))
    with pytest.raises(NotFoundError):
        store.update_person("nobody", Changes(name="x"))
    assert store.person("Katya Petrova") == store.update_person("katya", Changes())


def test_people_are_listed_in_pages_and_found(store: Store) -> None:
    names = ["Anna", "Борис", "Carla", "Dmitri", "Eve"]
    for name in names:
        store.add_faces(name, [], f"ID-{name}")
    seen, cursor, pages = [], None, 0
    while pages == 0 or cursor:
        page = store.people(limit=2, cursor=cursor)
        seen += [person.name for person in page.items]
        cursor, pages = page.next_cursor, pages + 1
    assert (seen, pages) == (names, 3)
    assert [person.name for person in store.people("бор").items] == ["Борис"]
    assert [person.name for person in store.people("id-c").items] == ["Carla"]
    assert store.people("%").items == []
    assert store.people("\udcff").items == []


@pytest.mark.parametrize("cursor", ["", "x", "ü", "ZTE=", "cDE", "cC0x", "cDk5OTk5OTk5OTk5OTk5OTk5OTk5"])
def test_a_foreign_cursor_is_refused(store: Store, cursor: str) -> None:
    with pytest.raises(RequestError) as caught:
        store.people(cursor=cursor)
    assert caught.value.code == "bad_cursor"


def test_the_gallery_is_one_matrix_sorted_by_person(store: Store) -> None:
    store.add_faces("Zero", [face(1)])
    store.add_faces("Katya", [face(2), face(3)])
    store.add_faces("Without Face", [])
    store.add_faces("Zero", [face(4)])
    rows = store.gallery()
    assert [person.name for person in rows.persons] == ["Katya", "Zero"]
    np.testing.assert_array_equal(rows.owners, [0, 0, 1, 1])
    np.testing.assert_array_equal(rows.matrix, [face(2), face(3), face(1), face(4)])
    assert (str(rows.owners.dtype), str(rows.matrix.dtype)) == ("int32", "float32")
    assert rows.matrix.flags.c_contiguous
    assert not rows.matrix.flags.writeable


def test_an_empty_gallery_has_the_right_shape(store: Store) -> None:
    rows = store.gallery()
    assert (rows.persons, rows.owners.shape, rows.matrix.shape) == ((), (0,), (0, 128))


def test_a_damaged_template_is_named(store: Store) -> None:
    store.add_faces("Katya", [face(1)])
    with store.writing() as db:
        db.execute("UPDATE templates SET encoding = ?", (np.full(128, np.nan, "<f4").tobytes(),))
    with pytest.raises(StoreError, match="Katya"):
        store.gallery()


def test_another_process_sees_every_change_by_the_revision(store: Store, path: Path, clock: HandClock) -> None:
    other = Store(path, clock)
    seen = [other.gallery_revision()]
    changes: tuple[Callable[[], Person], ...] = (
        lambda: store.add_faces("Katya", [face(1)]),
        lambda: store.add_faces("Katya", [face(2)]),
        lambda: store.update_person("Katya", Changes(name="Katja")),
        lambda: store.remove_face("katya", store.faces("katya")[0].id),
        lambda: store.remove("Katja"),
    )
    for change in changes:
        change()
        seen.append(other.gallery_revision())
        assert other.gallery().revision == seen[-1]
    assert seen == sorted(set(seen)), "it grew with each change"
    other.close()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["add", "remove", "reopen"]), st.sampled_from("ABc")), max_size=25))
def test_ids_and_faces_hold_over_any_history(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str]]
) -> None:
    path, clock = tmp_path_factory.mktemp("history") / "x.db", HandClock()
    store = Store(path, clock)
    given_ids: list[str] = []
    faces: dict[str, int] = {}
    for step, name in steps:
        if step == "add":
            person = store.add_faces(name, [face(1)])
            if name not in faces:
                assert person.id not in given_ids
                given_ids.append(person.id)
            faces[name] = faces.get(name, 0) + 1
            assert person.faces == faces[name]
        elif step == "remove" and name in faces:
            store.remove(name, by="name")
            del faces[name]
        elif step == "reopen":
            store.close()
            store = Store(path, clock)
    rows = store.gallery()
    counted = np.bincount(rows.owners, minlength=len(rows.persons))
    assert {person.name: int(n) for person, n in zip(rows.persons, counted, strict=True)} == faces
    store.close()
