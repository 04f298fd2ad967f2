"""The enrolled faces as one matrix, and how like them a probe is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_face.events import Encoding, Match, Person


@dataclass(frozen=True, eq=False, slots=True)
class Gallery:
    """An immutable snapshot. Changes make a new one, so a frame is judged against one gallery from start to end.

    `matrix` is float32 (n, 128), C-contiguous, a person's faces in a row; `starts` int (p,) where each person's begin.
    """

    persons: tuple[Person, ...]
    matrix: npt.NDArray[np.float32]
    starts: npt.NDArray[np.intp]
    _squares: npt.NDArray[np.float32]

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
        faces = np.ascontiguousarray(matrix[order], dtype=np.float32)
        with_face, starts = np.unique(owners[order], return_index=True)
        squares = np.einsum("ij,ij->i", faces, faces)
        return cls(tuple(persons[index] for index in with_face), faces, starts, squares)

    @classmethod
    def empty(cls) -> Gallery:
        return cls.build((), np.empty(0, np.int32), np.empty((0, 128), np.float32))

    def __len__(self) -> int:
        """Number of people who can be matched."""
        return len(self.persons)

    def distances(self, probes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Euclidean distance of probes (k, 128) to each person's nearest face, (k, people), in one matrix product."""
        squared = self._squares - 2 * (probes @ self.matrix.T) + np.einsum("ij,ij->i", probes, probes)[:, np.newaxis]
        nearest = np.minimum.reduceat(squared, self.starts, axis=1)
        return np.sqrt(np.maximum(nearest, 0))

    def match(self, encodings: Sequence[Encoding]) -> list[Match]:
        """The nearest person of each encoding, and how much farther the second one is."""
        if not encodings or not self.persons:
            return [Match()] * len(encodings)
        distances = self.distances(np.stack(encodings))
        rows = np.arange(len(encodings))
        best = distances.argmin(axis=1)
        nearest = distances[rows, best]
        if len(self.persons) == 1:
            return [Match(self.persons[0], float(distance)) for distance in nearest]
        distances[rows, best] = np.inf
        margins = distances.min(axis=1) - nearest
        return [
            Match(self.persons[person], float(distance), float(margin))
            for person, distance, margin in zip(best, nearest, margins, strict=True)
        ]
