"""The enrolled faces as one matrix, and how like them a probe is."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_face.events import Encoding, Match, Person


@dataclass(frozen=True, eq=False, slots=True)
class GalleryRows:
    """Everybody who has a face, as of one moment. Arrays are read-only and C-contiguous."""

    revision: int
    persons: tuple[Person, ...]
    """Sorted by id; people without a face are not among them."""
    owners: npt.NDArray[np.int32]
    """(n,): row of `matrix` to index in `persons`, ascending."""
    matrix: npt.NDArray[np.float32]
    """(n, 128): all templates."""


@dataclass(frozen=True, slots=True)
class Added:
    """Faces were added to `person`, who is as they now are; the revisions of the database's people, in between which
    nothing else happened.
    """

    person: Person
    before: int
    after: int


@dataclass(frozen=True, eq=False, slots=True)
class Gallery:
    """An immutable snapshot. Changes make a new one, so a frame is judged against one gallery from start to end.

    `starts`: where each person's faces begin, and after the last one how many faces there are.
    """

    persons: tuple[Person, ...]
    starts: tuple[int, ...]
    _owners: npt.NDArray[np.int32]
    _table: npt.NDArray[np.float32]
    """(129, n), C-contiguous: a face x in each column, and below it -|x|^2 / 2. One product of it with probes (p, 1)
    gives p.x - |x|^2 / 2 = (|p|^2 - |x - p|^2) / 2, which is largest for the nearest face. BLAS reads long rows faster
    than 128 numbers at a time."""

    @classmethod
    def build(
        cls, persons: Sequence[Person], owners: npt.NDArray[np.int32], matrix: npt.NDArray[np.float32]
    ) -> Gallery:
        """`owners` int32 (n,): each face's index into `persons`. People without a face are left out.

        Raises ValueError for a face that is not made of 128 finite numbers: NaN compares false to every threshold.
        """
        if matrix.shape != (len(owners), 128) or not np.isfinite(matrix).all():
            raise ValueError("A gallery holds finite 128-D encodings, one owner each.")
        order = np.argsort(owners, kind="stable")
        table = np.empty((129, len(owners)), np.float32)
        table[:128] = matrix[order].T
        np.einsum("ij,ij->j", table[:128], table[:128], out=table[128])
        table[128] *= -0.5
        with_face, starts, place = np.unique(owners[order], return_index=True, return_inverse=True)
        named = tuple(persons[index] for index in with_face)
        return cls(named, (*starts.tolist(), len(owners)), place.astype(np.int32), table)

    def grown(self, person: Person, encodings: Sequence[Encoding]) -> Gallery:
        """The same with one person more, or with more faces of one (`person`: as they now are).

        As `build` would make it of persons in the order of their ids; the old table is copied, which costs little.
        """
        faces = np.asarray(encodings, np.float32)
        if faces.shape != (len(encodings), 128) or not np.isfinite(faces).all():
            raise ValueError("A gallery holds finite 128-D encodings.")
        if not len(faces):
            return self
        at = bisect.bisect_left(self.persons, person.id, key=lambda each: each.id)
        known = at < len(self.persons) and self.persons[at].id == person.id
        start = self.starts[at + known]
        table = np.empty((129, self.starts[-1] + len(faces)), np.float32)
        table[:, :start], table[:, start + len(faces) :] = self._table[:, :start], self._table[:, start:]
        new = table[:, start : start + len(faces)]
        new[:128] = faces.T
        new[128] = -0.5 * np.einsum("ij,ij->j", new[:128], new[:128])
        owners = np.concatenate((self._owners[:start], np.full(len(faces), at, np.int32), self._owners[start:]))
        owners[start + len(faces) :] += not known
        persons = (*self.persons[:at], person, *self.persons[at + known :])
        later = (begin + len(faces) for begin in self.starts[at + known :])
        return Gallery(persons, (*self.starts[: at + known], *(() if known else (start,)), *later), owners, table)

    @classmethod
    def empty(cls) -> Gallery:
        return cls.build((), np.empty(0, np.int32), np.empty((0, 128), np.float32))

    def __len__(self) -> int:
        """Number of people who can be matched."""
        return len(self.persons)

    @property
    def faces(self) -> npt.NDArray[np.float32]:
        """float32 (n, 128), a view: the enrolled encodings, each person's in a row."""
        return self._table[:128].T

    def owner(self, face: int) -> Person:
        """Whose face that row of `faces` is."""
        return self.persons[self._owners.item(face)]

    def faces_of(self, is_wanted: Callable[[Person], bool]) -> npt.NDArray[np.float32]:
        """float32 (n, 128), a view: the first such person's faces; none where there is no such person."""
        at = next((at for at, person in enumerate(self.persons) if is_wanted(person)), None)
        return self.faces[:0] if at is None else self.faces[self.starts[at] : self.starts[at + 1]]

    def match(self, encodings: Sequence[Encoding]) -> list[Match]:
        """The nearest person of each encoding, and how much farther the second one is."""
        if not encodings or not self.persons:
            return [Match()] * len(encodings)
        probes = [_with_one(encoding) for encoding in encodings]
        scores = np.dot(np.array(probes), self._table) if len(probes) > 1 else [np.dot(probes[0], self._table)]
        return [self._nearest(*each) for each in zip(scores, probes, strict=True)]

    def _nearest(self, scores: npt.NDArray[np.float32], probe: npt.NDArray[np.float32]) -> Match:
        """The owner of the highest of `scores`, which are overwritten, and the margin to the highest of another's."""
        square = float(np.dot(probe[:128], probe[:128]))
        best = int(scores.argmax())
        person = self._owners.item(best)
        distance = math.sqrt(max(square - 2 * scores.item(best), 0))
        if len(self.persons) == 1:
            return Match(self.persons[person], distance)
        scores[self.starts[person] : self.starts[person + 1]] = -math.inf
        second = math.sqrt(max(square - 2 * scores.item(int(scores.argmax())), 0))
        return Match(self.persons[person], distance, second - distance)


def _with_one(encoding: Encoding) -> npt.NDArray[np.float32]:
    probe = np.empty(129, np.float32)
    probe[:128] = encoding
    probe[128] = 1
    return probe
