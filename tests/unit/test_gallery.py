"""Distances and margins against the plain formula."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_face.events import Person
from edge_face.gallery import Gallery


def people(count: int) -> list[Person]:
    return [Person(f"p{number}", f"Person {number}") for number in range(count)]


def random_gallery(faces_each: list[int], seed: int) -> Gallery:
    owners = np.repeat(np.arange(len(faces_each), dtype=np.int32), faces_each)
    matrix = np.random.default_rng(seed).normal(0, 0.12, (len(owners), 128)).astype(np.float32)
    return Gallery.build(people(len(faces_each)), owners, matrix)


@given(st.lists(st.integers(1, 4), min_size=2, max_size=12), st.integers(0, 2**32 - 1))
def test_best_person_distance_and_margin_are_those_of_the_plain_formula(faces_each: list[int], seed: int) -> None:
    gallery = random_gallery(faces_each, seed)
    probes = np.random.default_rng(seed + 1).normal(0, 0.12, (3, 128)).astype(np.float32)
    owners = np.repeat(np.arange(len(faces_each)), faces_each)
    for probe, match in zip(probes, gallery.match(list(probes)), strict=True):
        plain = np.linalg.norm(gallery.faces.astype(np.float64) - probe, axis=1)
        nearest = sorted((plain[owners == owner].min(), owner) for owner in range(len(faces_each)))
        assert match.person == gallery.persons[nearest[0][1]]
        assert match.distance == pytest.approx(nearest[0][0], abs=1e-4)
        assert match.margin == pytest.approx(nearest[1][0] - nearest[0][0], abs=2e-4)


def test_faces_need_not_stand_together_and_people_without_a_face_are_left_out() -> None:
    matrix = np.eye(128, dtype=np.float32)[:4]
    gallery = Gallery.build(people(4), np.array([3, 0, 3, 1], np.int32), matrix)
    assert [person.id for person in gallery.persons] == ["p0", "p1", "p3"]
    assert [match.person for match in gallery.match(list(matrix))] == [
        Person(*p)
        for p in (
            ("p3", "Person 3"),
            ("p0", "Person 0"),
            ("p3", "Person 3"),
            ("p1", "Person 1"),
        )
    ]
    assert gallery.faces.shape == (4, 128)
    assert gallery.faces.dtype == np.float32


def test_an_enrolled_face_is_at_distance_zero() -> None:
    gallery = random_gallery([2, 2], 5)
    match = gallery.match([gallery.faces[3]])[0]
    assert match.person == gallery.persons[1]
    assert match.distance == pytest.approx(0, abs=2e-3)


def test_an_empty_gallery_matches_nobody() -> None:
    (match,) = Gallery.empty().match([np.zeros(128, np.float32)])
    assert (match.person, match.distance, match.margin) == (None, None, None)


def test_one_person_has_a_distance_and_no_margin() -> None:
    (match,) = random_gallery([3], 1).match([np.zeros(128, np.float32)])
    assert match.distance is not None
    assert match.margin is None


def test_no_faces_no_matches() -> None:
    assert random_gallery([1, 1], 0).match([]) == []


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_encoding_that_is_not_finite_is_refused(bad: float) -> None:
    matrix = np.zeros((2, 128), np.float32)
    matrix[1, 7] = bad
    with pytest.raises(ValueError, match="finite"):
        Gallery.build(people(2), np.array([0, 1], np.int32), matrix)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 3)), min_size=1, max_size=12), st.integers(0, 2**32 - 1))
def test_a_gallery_that_grew_is_the_one_that_is_built(added: list[tuple[int, int]], seed: int) -> None:
    random = np.random.default_rng(seed)
    gallery, faces = Gallery.empty(), dict[int, list[npt.NDArray[np.float32]]]()
    for number, count in added:
        new = list(random.normal(0, 0.12, (count, 128)).astype(np.float32))
        before = gallery.faces.copy()
        grown = gallery.grown(Person(f"p{number}", "", faces=len(faces.get(number, [])) + count), new)
        assert np.array_equal(gallery.faces, before)  # snapshots never change
        gallery = grown
        faces.setdefault(number, []).extend(new)
        persons = [Person(f"p{each}", "", faces=len(faces[each])) for each in sorted(faces)]
        owners = np.repeat(np.arange(len(faces), dtype=np.int32), [person.faces for person in persons])
        built = Gallery.build(persons, owners, np.concatenate([faces[each] for each in sorted(faces)]))
        assert gallery.persons == built.persons
        assert gallery.starts == built.starts
        assert np.array_equal(gallery.faces, built.faces)
        assert [gallery.owner(row) for row in range(len(owners))] == [built.owner(row) for row in range(len(owners))]
        probe = random.normal(0, 0.12, 128).astype(np.float32)
        (match,), (expected,) = gallery.match([probe]), built.match([probe])
        assert match.person == expected.person
        assert match.distance == pytest.approx(expected.distance, abs=1e-5)
        assert match.margin == pytest.approx(expected.margin, abs=1e-5)


def test_a_gallery_does_not_grow_by_what_is_no_number() -> None:
    with pytest.raises(ValueError, match="finite"):
        Gallery.empty().grown(Person("p", "P"), [np.full(128, np.nan, np.float32)])
