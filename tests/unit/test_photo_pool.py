"""How many processes read the photos of a folder."""

from __future__ import annotations

import pytest

from edge_face.memory import MIB
from edge_face.photo_pool import how_many


@pytest.mark.parametrize(
    ("photos", "processors", "available_mib", "photo_mib", "expected"),
    [
        (1000, 4, 8000, 512, 4),
        (1000, 1, 8000, 512, 1),
        (1, 4, 8000, 512, 1),
        (90, 4, 8000, 512, 2),  # a child takes as long to start as it takes to read 40 photos
        (1000, 4, 1500, 512, 2),  # 2 GiB
        (1000, 4, 300, 170, 1),  # 512 MiB: one there must be
        (1000, 4, 0, 512, 1),  # the board does not tell
    ],
)
def test_one_a_processor_if_there_is_work_and_memory_for_each(
    photos: int, processors: int, available_mib: int, photo_mib: int, expected: int
) -> None:
    assert how_many(photos, processors, available_mib * MIB, photo_mib * MIB) == expected
