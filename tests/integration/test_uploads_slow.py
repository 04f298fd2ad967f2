"""Hostile photos and ZIPs by the hundred, the largest uploads beside a ticking event loop, the largest camera."""

from __future__ import annotations

import asyncio
import base64
import io
import random
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_face import settings, zips
from edge_face.clock import SystemClock
from edge_face.errors import ImageError, RequestError
from edge_face.events import FrameResult
from edge_face.memory import GROWTH
from edge_face.messages import CameraJob
from edge_face.supervisor import CameraProcess, PhotoProcess
from tests.support.api import running
from tests.support.photos import astronaut, hopper, side_by_side
from tests.support.ticker import measured_stalls
from tests.support.uploads import eileen, encoded, mutated, samples

pytestmark = pytest.mark.slow
MUTANTS = 50
"""Of each format."""


@pytest.mark.paired
async def test_mutants_of_every_format_end_in_an_answer(tmp_path: Path) -> None:
    """Each is answered within the time limit, and an honest photo is read after all of them."""
    chance = random.Random(20)
    photos = PhotoProcess(settings.Engine(), "error", timeout_s=20)
    told: dict[str, int] = {}
    children: set[int | None] = set()
    try:
        for sample in samples():
            if len(sample.data) > 1 << 20:
                continue
            for _ in range(MUTANTS):
                try:
                    result = await photos.analyse(mutated(sample.data, chance))
                    word = f"{len(result.faces)} faces"
                except ImageError as error:
                    word = "too slow" if "takes too long" in error.message else error.code
                told[word] = told.get(word, 0) + 1
                children.add(photos.pid)
        assert len((await photos.analyse(encoded(eileen(), "PNG"))).faces) == 1
    finally:
        await photos.close()
    print(f"{sum(told.values())} mutants: {told}; {len(children - {None})} children")
    assert set(told) > {"1 faces", "bad_image"}
    assert "too slow" not in told


@pytest.mark.paired
def test_mutants_of_a_zip_end_in_members_or_a_refusal() -> None:
    chance = random.Random(21)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(4):
            archive.writestr(f"Zoë/{number}.jpg", bytes(range(256)) * 3)
    data = out.getvalue()
    whole = refused = 0
    for _ in range(20_000):
        try:
            for member in zips.Archive(io.BytesIO(mutated(data, chance))):
                assert bool(member.data) != bool(member.refused) or not member.refused
            whole += 1
        except RequestError:
            refused += 1
    print(f"{whole} ZIPs read, {refused} refused")
    assert whole > 1000
    assert refused > 1000


async def test_the_largest_uploads_do_not_hold_up_a_decision(tmp_path: Path) -> None:
    """Sent by another process, so that only the server's part is measured."""
    noise = np.random.default_rng(1).bytes(19 << 20)
    frame = base64.b64encode(noise)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(12):
            archive.writestr(f"{number}.jpg", noise)
    bodies = {
        "/api/v1/recognize": (("image", noise), 422),
        "/process-frame/": (("frame", frame), 422),
        "/api/v1/people/batch": (("zip", out.getvalue()), 200),
    }
    photos = PhotoProcess(settings.Engine(), "error")
    try:
        async with running(tmp_path, photos) as api:
            await photos.analyse(encoded(eileen(), "PNG"))
            for path, (field, status) in bodies.items():
                (tmp_path / "body").write_bytes(field[1])
                sender = await asyncio.create_subprocess_exec(
                    "curl", "-sS", "-o", tmp_path / "answer", "-w", "%{http_code}", "-H", f"X-API-Key: {api.admin}",
                    "-F", f"{field[0]}=@{tmp_path / 'body'}", api.server.url + path, stdout=asyncio.subprocess.PIPE,
                )  # fmt: skip
                async with measured_stalls() as stalls:
                    told, _ = await sender.communicate()
                assert told == str(status).encode(), (tmp_path / "answer").read_text()
                print(f"{path}: {len(field[1]) >> 20} MiB, longest stall {stalls.longest_s * 1000:.1f} ms")
                assert stalls.longest_s < 0.05, path
    finally:
        await photos.close()


async def test_a_4k_camera_does_not_count_as_a_leak(tmp_path: Path) -> None:
    """Its decoder holds many large frames; it must never be replaced for that."""
    clip = tmp_path / "clip.mp4"  # MJPEG needs a third less
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"mp4v"), 30, (3840, 2160))
    scene = cv2.resize(side_by_side(astronaut(), hopper()), (3840, 2160))[:, :, ::-1]
    for number in range(30):
        writer.write(np.ascontiguousarray(np.roll(scene, 20 * (number % 4), axis=1)))
    writer.release()
    source = settings.Camera(source=str(clip), loop=True, fps=0)
    frames: list[FrameResult] = []
    process = CameraProcess(
        lambda first: CameraJob("front", source, settings.Engine(), 70, 5.0, first, "warning"),
        "front",
        SystemClock(),
        frames.append,
        lambda _status: None,
    )
    task = asyncio.create_task(process.run())
    most = 0
    try:
        async with asyncio.timeout(300):
            while len(frames) < 20:
                await asyncio.sleep(0.2)
                most = max(most, process.memory_bytes)
        assert process._growth
        grown, allowed = most - process._growth.start, GROWTH + 16 * 3840 * 2160 * 3
        print(f"grown by {grown >> 20} of {allowed >> 20} MiB")
        assert process.restarts == 0
        assert 0 < grown < allowed
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
