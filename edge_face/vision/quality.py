"""How good a view of a face is: size, sharpness, exposure, pose. Measured on the aligned chip and the landmarks."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from edge_face.events import Box, Quality
from edge_face.images import RgbImage

Landmarks = npt.NDArray[np.float64]
"""dlib's five points, (5, 2) of x and y: two corners of one eye, two of the other, the bottom of the nose."""

# Pose from five points is a ratio, not an angle: 0 is straight ahead.
_NOSE_BELOW_EYES = 0.55
"""Where the nose stands in a frontal face, in distances between the outer eye corners (the mean of LFW)."""

# What is refused at enrolment: beyond the first or last hundredth of LFW photos; a blur of 4 pixels is far below.
_MIN_SIZE_PX = 60
_MIN_SHARPNESS = 20.0
_MIN_BRIGHTNESS = 30.0
_MAX_BRIGHTNESS = 225.0
_MIN_CONTRAST = 15.0
_MAX_YAW = 0.3
_MAX_PITCH = 0.3
_MAX_ROLL_DEG = 35.0


def measure(box: Box, chip: RgbImage, landmarks: Landmarks) -> Quality:
    """`chip` is the aligned face, (150, 150, 3) RGB; `landmarks` are in the pixels of the picture."""
    grey = np.asarray(cv2.cvtColor(chip, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    face = grey[30:120, 30:120]  # without hair and background
    right, left, nose = landmarks[0:2].mean(axis=0), landmarks[2:4].mean(axis=0), landmarks[4]
    eyes = right - left
    span = max(float(np.linalg.norm(landmarks[0] - landmarks[2])), 1e-6)
    along = eyes / max(float(np.linalg.norm(eyes)), 1e-6)
    down = np.array([-along[1], along[0]])
    offset = nose - (right + left) / 2
    return Quality(
        size_px=box.width,
        # Variance of the Laplacian (Pech-Pacheco 2000), by contrast, so that a dim face is not called blurred.
        sharpness=round(float(cv2.Laplacian(face, cv2.CV_64F).var()) * (50.0 / max(float(face.std()), 10.0)), 1),
        brightness=round(float(face.mean()), 1),
        contrast=round(float(face.std()), 1),
        yaw=round(float(offset @ along) / span, 3),
        pitch=round(float(offset @ down) / span - _NOSE_BELOW_EYES, 3),
        roll_deg=round(float(np.degrees(np.arctan2(along[1], along[0]))), 1),
    )


def score(quality: Quality) -> float:
    """One number, 0 to 1, to compare two views of the same face. The product: a view is as bad as its worst flaw."""
    exposure = min(1.0, quality.contrast / 40.0)
    pose = max(0.0, 1.0 - abs(quality.yaw) / 0.5) * max(0.0, 1.0 - abs(quality.pitch) / 0.6)
    return min(1.0, quality.size_px / 150.0) * min(1.0, quality.sharpness / 80.0) * exposure * pose


def flaws(quality: Quality) -> Iterator[str]:
    """Why a photo is not fit for enrolment: each reason with its number; nothing if it is."""
    if quality.size_px < _MIN_SIZE_PX:
        yield f"the face is small ({quality.size_px} pixels wide, at least {_MIN_SIZE_PX} are needed)"
    if quality.sharpness < _MIN_SHARPNESS:
        yield f"the face is blurred (sharpness {quality.sharpness:.0f}, at least {_MIN_SHARPNESS:.0f} is needed)"
    if quality.brightness < _MIN_BRIGHTNESS:
        yield f"the face is too dark (brightness {quality.brightness:.0f}, at least {_MIN_BRIGHTNESS:.0f} is needed)"
    if quality.brightness > _MAX_BRIGHTNESS:
        yield f"the face is too bright (brightness {quality.brightness:.0f}, at most {_MAX_BRIGHTNESS:.0f} is allowed)"
    if quality.contrast < _MIN_CONTRAST:
        yield f"the face has too little contrast ({quality.contrast:.0f}, at least {_MIN_CONTRAST:.0f} is needed)"
    if abs(quality.yaw) > _MAX_YAW:
        yield f"the head is turned to the side ({abs(quality.yaw):.2f}, at most {_MAX_YAW} is allowed)"
    if abs(quality.pitch) > _MAX_PITCH:
        yield f"the head looks up or down ({abs(quality.pitch):.2f}, at most {_MAX_PITCH} is allowed)"
    if abs(quality.roll_deg) > _MAX_ROLL_DEG:
        yield f"the head is tilted ({abs(quality.roll_deg):.0f} degrees, at most {_MAX_ROLL_DEG:.0f} are allowed)"
