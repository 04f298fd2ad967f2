"""The child that draws boxes and names into frames for `/streaming`; it runs only while somebody watches.

A process of its own, because it decodes pictures that come from a camera's child, and a camera's child is not to be
trusted with names. Started as `python -m edge_face.drawing FD`.
"""

from __future__ import annotations

import functools
import io
import os
import resource
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from edge_face import lifeline, memory
from edge_face.messages import Channel, Draw, Drawn, Label

_MEMORY = 1 << 30
"""Address space: a picture that wants more is left out."""
_SCORE, _NICE = 900, 10
"""The first to go when memory is short, and behind the gate where there is not enough CPU for both."""
_GREEN, _RED, _GREY = (0, 150, 60), (200, 30, 30), (110, 110, 110)
_COLORS = {"PASS": _GREEN, "REJECT": _RED}
_FONT = "DejaVuSans.ttf"
"""Where the system has it, names in most scripts can be read; otherwise Pillow's own font draws Latin ones."""


def draw(jpeg: bytes, labels: tuple[Label, ...], quality: int) -> bytes:
    """The frame with a box and a text for each label. Raises what Pillow raises for a damaged picture."""
    with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as opened:
        image = opened.convert("RGB")
    pen = ImageDraw.Draw(image)
    width = max(4, image.width // 200)  # a thin line's colour is lost in JPEG
    font = _font(max(14, image.height // 28))
    for label in labels:
        color = _COLORS.get(label.status, _GREY)
        x1, x2 = sorted((_within(label.box.x1, image.width), _within(label.box.x2, image.width)))
        y1, y2 = sorted((_within(label.box.y1, image.height), _within(label.box.y2, image.height)))
        pen.rectangle((x1, y1, x2, y2), outline=color, width=width)
        left, top, right, bottom = (round(side) for side in pen.textbbox((0, 0), label.text, font=font))
        high, wide = bottom - top + 8, right - left + 8
        # Above the box, or inside it where there is no room.
        at = (max(0, min(x1, image.width - wide)), y1 - high if y1 >= high else y1)
        pen.rectangle((at[0], at[1], at[0] + wide, at[1] + high), fill=color)
        pen.text((at[0] + 4 - left, at[1] + 4 - top), label.text, fill="white", font=font)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


def _within(value: int, size: int) -> int:
    return min(max(0, value), size - 1)


@functools.lru_cache(maxsize=4)
def _font(size: int) -> Any:
    try:
        return ImageFont.truetype(_FONT, size)
    except OSError:
        return ImageFont.load_default(size)


def _serve(channel: Channel) -> None:
    memory.first_to_go(_SCORE)
    os.nice(_NICE)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    channel.receive()  # the job, which says nothing more
    while True:
        asked = channel.receive()
        if isinstance(asked, Draw):
            try:
                jpeg = draw(asked.jpeg, asked.labels, asked.quality)
            except (OSError, ValueError, SyntaxError, MemoryError, Image.DecompressionBombError):
                jpeg = None
            channel.send(Drawn(asked.id, jpeg))


if __name__ == "__main__":
    lifeline.live(_serve)
