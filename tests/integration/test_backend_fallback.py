"""Backends that kill, hang or lie, in real child processes: a package named onnxruntime stands in for a broken one."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_face import settings
from edge_face.backends import Backends
from edge_face.errors import WorkerError
from edge_face.messages import CameraJob
from edge_face.supervisor import CameraProcess, PhotoProcess
from tests.support.photos import astronaut, jpeg

ROOT = Path(__file__).parents[2]

SEGV = "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n"
ILL = "import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n"
QUIT = "import os\nos._exit(3)\n"
BROKEN = "raise ImportError('libstdc++.so.6: version GLIBCXX_3.4.29 not found')\n"
ABSENT = "raise ModuleNotFoundError(\"No module named 'onnxruntime'\", name='onnxruntime')\n"
NAN = """
import numpy as np


class SessionOptions:
    def add_session_config_entry(self, key, value):
        pass


class InferenceSession:
    def __init__(self, model, options, providers):
        pass

    def get_inputs(self):
        return [type("Input", (), {"name": "image"})]

    def run(self, outputs, inputs):
        return [np.full((len(inputs["image"]), 128), np.nan, np.float32)]
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package `onnxruntime` that the children find first; it notes each import in the file `imports`."""
    package = tmp_path / "fake" / "onnxruntime"
    package.mkdir(parents=True)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(package.parent), str(ROOT))))
    return package


def write(package: Path, code: str) -> None:
    note = f"with open({str(package.parent / 'imports')!r}, 'a') as file:\n    file.write('x')\n"
    (package / "__init__.py").write_text(note + code)


def imports(package: Path) -> int:
    noted = package.parent / "imports"
    return len(noted.read_text()) if noted.exists() else 0


def camera(folder: Path, known: Backends, backend: str = "auto") -> CameraProcess:
    """A folder with one photo, watched to its end."""
    folder.mkdir(exist_ok=True)
    (folder / "1.jpg").write_bytes(jpeg(astronaut()))
    options = settings.Camera(source=str(folder), realtime=False)

    def job(first_track: int) -> CameraJob:
        return CameraJob("front", options, settings.Engine(backend=backend), 70, 5.0, first_track, "warning")

    return CameraProcess(job, "front", CLOCK, lambda frame: None, lambda status: None, known)


class _Clock:
    """The system's; the supervisor only measures how long a child lived."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return 0.0


CLOCK = _Clock()


@pytest.mark.parametrize(("code", "signal"), [(SEGV, "SIGSEGV"), (ILL, "SIGILL")])
async def test_a_backend_that_kills_its_process_is_replaced_at_once_and_remembered(
    code: str, signal: str, fake: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(fake, code)
    process = camera(tmp_path / "photos", Backends.remembered())
    await process.run()
    assert (process.backend, process.status.state, process.restarts) == ("opencv", "ended", 0)
    assert imports(fake) == 1
    ((name, reason),) = process.refused
    assert name == "onnxruntime"
    assert signal in reason
    assert any(record.levelno == logging.ERROR and signal in record.message for record in caplog.records)

    again = camera(tmp_path / "photos", Backends.remembered())  # as the next start of the daemon
    await again.run()
    assert (again.backend, imports(fake)) == ("opencv", 1)
    assert again.refused == process.refused


async def test_one_crash_is_enough_for_all_children_of_a_parent(fake: Path, tmp_path: Path) -> None:
    write(fake, SEGV)
    known = Backends.remembered()
    await camera(tmp_path / "photos", known).run()
    photos = PhotoProcess(settings.Engine(), "warning", backends=known)
    try:
        assert len((await photos.analyse(jpeg(astronaut()))).faces) == 1
    finally:
        await photos.close()
    assert imports(fake) == 1


async def test_an_upload_alone_survives_the_crash_too(fake: Path) -> None:
    write(fake, SEGV)
    photos = PhotoProcess(settings.Engine(), "warning")
    try:
        assert len((await photos.analyse(jpeg(astronaut()))).faces) == 1
    finally:
        await photos.close()


@pytest.mark.parametrize(("code", "reason"), [(NAN, "no numbers"), (BROKEN, "ImportError: libstdc++")])
async def test_a_backend_that_lies_or_cannot_be_loaded_is_refused_by_the_child_itself(
    code: str, reason: str, fake: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(fake, code)
    known = Backends.remembered()
    process = camera(tmp_path / "photos", known)
    await process.run()
    assert process.backend == "opencv"
    ((name, why),) = process.refused
    assert name == "onnxruntime"
    assert reason in why
    assert any(record.levelno == logging.ERROR and reason in record.message for record in caplog.records)
    assert known.skip == ()


async def test_a_backend_that_is_not_installed_is_nothing_to_complain_of(fake: Path, tmp_path: Path) -> None:
    write(fake, ABSENT)
    process = camera(tmp_path / "photos", Backends.remembered())
    await process.run()
    assert (process.backend, process.refused) == ("opencv", ())


async def test_a_backend_that_ends_its_process_is_replaced_but_not_for_ever(fake: Path, tmp_path: Path) -> None:
    write(fake, QUIT)
    process = camera(tmp_path / "photos", Backends.remembered())
    await process.run()
    assert (process.backend, process.restarts) == ("opencv", 0)
    assert Backends.remembered().skip == ()


async def test_a_backend_that_hangs_is_replaced(fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(fake, "import time\ntime.sleep(1000)\n")
    monkeypatch.setattr("edge_face.child.START_S", 8.0)
    process = camera(tmp_path / "photos", Backends())
    await process.run()
    assert process.backend == "opencv"
    assert "did not answer" in dict(process.refused)["onnxruntime"]


async def test_a_backend_that_was_named_is_an_error_in_plain_words(fake: Path, tmp_path: Path) -> None:
    write(fake, SEGV)
    photos = PhotoProcess(settings.Engine(backend="onnxruntime"), "error")
    with pytest.raises(WorkerError, match="killed by signal 11 while it tried the backend onnxruntime"):
        await photos.analyse(jpeg(astronaut()))
    write(fake, NAN)
    with pytest.raises(WorkerError, match=r"The backend onnxruntime cannot be used: .* no numbers"):
        await photos.analyse(jpeg(astronaut()))
    await photos.close()


async def test_a_child_that_is_cancelled_while_it_loads_is_gone(fake: Path, tmp_path: Path) -> None:
    write(fake, "import time\ntime.sleep(1000)\n")
    task = asyncio.create_task(camera(tmp_path / "photos", Backends()).run())
    async with asyncio.timeout(30):
        while not imports(fake):
            await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    assert not [pid for pid in children if b"edge_face.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]


class TestModelsCommand:
    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "edge_face", "models", *args]
        environment = {"PYTHONPATH": str(ROOT), **os.environ}
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100, check=False)

    def test_files_and_backends_are_verified(self) -> None:
        done = self.run("--json")
        assert (done.returncode, done.stderr) == (0, "")
        told = json.loads(done.stdout)
        assert [row["name"] for row in told["backends"]] == ["onnxruntime", "opencv", "face_recognition"]
        assert all(row["ok"] and row["ms_per_face"] > 0 for row in told["backends"])
        assert {row["state"] for row in told["files"]} == {"ok"}
        assert told["files"][0]["converted"] is True
        assert [row["name"] for row in told["files"] if "non-commercial" in row["licence"]] == [
            "shape_predictor_68_face_landmarks.dat"
        ]

    def test_a_crash_is_a_row_and_not_the_end(self, fake: Path) -> None:
        write(fake, SEGV)
        done = self.run()
        assert done.returncode == 0
        rows = {line.split()[0]: line for line in done.stdout.splitlines() if line}
        assert "FAILED" in rows["onnxruntime"]
        assert "killed by signal 11" in rows["onnxruntime"]
        assert "passed its self-test" in rows["opencv"]

    def test_a_backend_that_works_again_is_forgiven(self, cache: Path) -> None:
        Backends.remembered().died("onnxruntime", -11)
        assert Backends.remembered().skip == ("onnxruntime",)
        assert self.run().returncode == 0
        assert Backends.remembered().skip == ()

    def test_another_file_than_the_pinned_one_is_a_failure(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from edge_face.vision import models

        folder = tmp_path / "other" / "face_recognition_models" / "models"
        folder.mkdir(parents=True)
        (folder.parent / "__init__.py").write_text("")
        for name in (models.ENCODER, models.LANDMARKS):
            (folder / name).symlink_to(models.weights(name))
        (folder / "mmod_human_face_detector.dat").write_bytes(b"something else")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(folder.parents[1]), str(ROOT))))
        done = self.run("--json")
        assert done.returncode == 1
        assert "mmod_human_face_detector.dat is wrong" in done.stderr
        assert [row["state"] for row in json.loads(done.stdout)["files"]] == ["ok", "ok", "wrong", "missing"]
