"""A camera program that stands in for rpicam-vid and for a stranger's: `python program.py [OPTIONS]`.

It knows the options of rpicam-vid that matter here, and pads its raw pictures as that does. Files in the folder FLAGS
tell it at any time to misbehave: `die`, `stall`, `freeze`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import cv2
import film
import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--codec", choices=("yuv420", "mjpeg", "bgr24"), default="mjpeg")
    parser.add_argument("--align", type=int, default=1)
    parser.add_argument("--fps", type=float, default=film.FPS, help="0: as fast as they are read")
    parser.add_argument("--queue", action="store_true", help="keep all pictures until they are written")
    parser.add_argument("--damage", action="store_true", help="a part of each JPEG is missing")
    parser.add_argument("--flood", action="store_true", help="say a lot")
    for name in ("--timeout", "--framerate", "--output", "--verbose", "--quality"):
        parser.add_argument(name)
    for name in ("--nopreview", "--flush"):
        parser.add_argument(name, action="store_true")
    options = parser.parse_args()
    width, height = options.width, options.height
    flags = Path(os.environ.get("FLAGS", "/nonexistent"))
    if "--framerate" in sys.argv:  # called as rpicam-vid: then libcamera talks
        said = f"INFO Camera camera.cpp:1202 configuring streams: (0) {width}x{height}-YUV420/sYCC (1) 1536x864-BGGR16"
        print(f"[0:00:01.5] [77]  {said}", file=sys.stderr, flush=True)
    stride = -(-width // options.align) * options.align
    due, number = time.monotonic(), film.count()
    while True:
        if (flags / "die").exists():
            print("ERROR: *** no cameras available, at rtsp://katya:geheim@door ***", file=sys.stderr)
            sys.exit(3)
        if not (flags / "freeze").exists():
            number = film.count(due if options.queue else None)
        if options.codec == "yuv420":
            data = film.i420(number, width, height, stride)
        else:
            data = film.bgr(number, width, height)
            if options.codec == "mjpeg":
                image = np.frombuffer(data, np.uint8).reshape(height, width, 3)
                data = cv2.imencode(".jpg", image)[1].tobytes()
                if options.damage:
                    data = data[: len(data) * 3 // 4] + b"\xff\xd9"
        while (flags / "stall").exists():
            time.sleep(0.02)
        if options.flood:
            os.write(2, b"frame= 1 fps= 20 " * 4000 + b"\n")
        view = memoryview(data)
        while view:
            view = view[os.write(1, view) :]
        if options.fps:
            due += 1 / options.fps
            time.sleep(max(0.0, due - time.monotonic()))
            if not options.queue:
                due = max(due, time.monotonic() - 0.1)


if __name__ == "__main__":
    main()
