"""The enrolled faces as one matrix, and how like them a probe is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_face.events import Encoding, Match, Person

BLOCK = 16384
"""Faces in one matrix product, whose result is still in the cache when it is put among the scores."""


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

    def match(self, encodings: Sequence[Encoding]) -> list[Match]:
        """The nearest person of each encoding, and how much farther the second one is."""
        if not encodings or not self.persons:
            return [Match()] * len(encodings)
        probes = np.array(encodings, np.float32)
        squares = np.einsum("ij,ij->i", probes, probes)
        rows = zip(self._scores(probes), squares.tolist(), strict=True)
        return [self._nearest(scores, square) for scores, square in rows]

    def _scores(self, probes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Squared distances (k, n) of probes (k, 128) to each face, less the probe's own square."""
        doubled = probes.T * np.float32(-2)
        if len(probes) == 1:
            single = self.matrix @ doubled[:, 0]
            single += self._squares
            return single[np.newaxis]
        scores = np.empty((len(probes), len(self.matrix)), np.float32)
        for begin in range(0, len(self.matrix), BLOCK):
            end = begin + BLOCK
            np.add((self.matrix[begin:end] @ doubled).T, self._squares[begin:end], out=scores[:, begin:end])
        return scores

    def _nearest(self, scores: npt.NDArray[np.float32], square: float) -> Match:
        """The owner of the lowest of `scores`, which are overwritten, and the margin to the lowest of another's."""
        best = scores.argmin()
        distance = math.sqrt(max(scores.item(best) + square, 0))
        person = int(self.starts.searchsorted(best, "right")) - 1
        if len(self.persons) == 1:
            return Match(self.persons[person], distance)
        end = self.starts[person + 1] if person + 1 < len(self.starts) else None
        scores[self.starts[person] : end] = np.inf
        second = math.sqrt(max(scores.item(scores.argmin()) + square, 0))
        return Match(self.persons[person], distance, second - distance)
