"""Pictures in memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BgrImage = npt.NDArray[np.uint8]
"""Shape (height, width, 3), BGR as OpenCV delivers it, C-contiguous."""

RgbImage = npt.NDArray[np.uint8]
"""Shape (height, width, 3), RGB as dlib takes it, C-contiguous."""
