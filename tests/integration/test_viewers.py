"""A crowd before the live stream costs the camera nothing that counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import viewers
from edge_face.web.stream import MAX_VIEWERS


@pytest.mark.slow
def test_fifty_viewers_and_one_that_never_reads_leave_the_camera_its_frames(tmp_path: Path) -> None:
    """Nobody and everybody take turns, so that a busy machine is busy for both."""
    assert MAX_VIEWERS > 51
    _, crowd = viewers.run(tmp_path, seconds=4, rounds=3, fps=10, crowds=((0, 0), (50, 1)))
    print(crowd)
    assert crowd.kept >= 0.9
    assert crowd.watched is not None
    assert crowd.watched >= 0.9
