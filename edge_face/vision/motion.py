"""Where the picture has changed since somebody last looked there. What has not changed need not be searched again."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edge_face.events import Box

_SAMPLED_WIDTH = 320
"""Pixels across that are looked at: enough for a cell's mean, and cheap even of a 4K frame."""
_CELL_PX = 8
"""Sampled pixels along a cell: the mean of 64 has an eighth of a pixel's noise."""
_CHANGE = 4.0
"""Grey levels (0 to 255) by which a cell's mean must change. Sensor noise of 5 levels moves it by 0.6."""

Cells = npt.NDArray[np.bool_]
"""(rows, columns); true where something changed."""


@dataclass(frozen=True, eq=False, slots=True)
class Motion:
    """The changed cells of one frame, and how many frame pixels a cell spans."""

    cells: Cells
    cell_px: float

    @property
    def any(self) -> bool:
        return bool(self.cells.any())

    def within(self, box: Box) -> bool:
        return bool(self.cells[self.span(box)].any())

    def outside(self, boxes: list[Box]) -> bool:
        """Whether anything changed where none of the boxes is."""
        rest = self.cells.copy()
        for box in boxes:
            rest[self.span(box)] = False
        return bool(rest.any())

    def span(self, box: Box) -> tuple[slice, slice]:
        """The cells that the box touches."""
        edges = [edge / self.cell_px for edge in (box.y1, box.y2, box.x1, box.x2)]
        top, bottom, left, right = (max(0, int(edge)) for edge in edges)
        return slice(top, bottom + 1), slice(left, right + 1)


class MotionGate:
    """Compares each frame, cell by cell, with what was there when that cell was last examined.

    Not with the frame before: somebody who moves slowly enough would never be seen.
    """

    def __init__(self) -> None:
        self._size: tuple[int, ...] = ()
        self._examined: npt.NDArray[np.float32] | None = None
        self._now: npt.NDArray[np.float32] = np.empty((0, 0), np.float32)
        self._motion = Motion(np.empty((0, 0), np.bool_), 1.0)

    def look(self, bgr: npt.NDArray[np.uint8]) -> Motion:
        """What changed in this frame, (height, width, 3) BGR. Everything, if there is nothing to compare it with."""
        step = max(1, round(bgr.shape[1] / _SAMPLED_WIDTH))
        # Green alone: it is most of the luminance, and a third of the bytes.
        sampled = np.ascontiguousarray(bgr[::step, ::step, 1])
        rows, columns = (max(1, -(-side // _CELL_PX)) for side in sampled.shape)
        self._now = np.asarray(cv2.resize(sampled, (columns, rows), interpolation=cv2.INTER_AREA), dtype=np.float32)
        if self._size != bgr.shape:
            self._size, self._examined = bgr.shape, None
        if self._examined is None:
            cells = np.ones(self._now.shape, np.bool_)
        else:
            cells = np.abs(self._now - self._examined) > _CHANGE
        self._motion = Motion(cells, step * _CELL_PX)
        return self._motion

    def examined(self, box: Box | None = None) -> None:
        """The present frame was searched: all of it, or in the box."""
        if box is None or self._examined is None:
            self._examined = self._now.copy()
        else:
            span = self._motion.span(box)
            self._examined[span] = self._now[span]

    def reset(self) -> None:
        self._examined = None
