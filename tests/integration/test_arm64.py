"""edge-face on arm64, emulated: the lock installs from wheels, the vision's tests pass, and every answer is as here.

Emulated networks are some hundred times slower, so tests that merely take long are left out, and nothing is learnt of
speed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

from edge_face.settings import YUNET_FILE
from edge_face.vision.models import BACKENDS
from scripts.check_wheels import PURE_SDISTS, TARGETS, pip_install, read_lock, wanted
from tests.support import answers
from tests.support.arm64 import CACHE, ROOT, Guest

pytestmark = pytest.mark.arm64

RUN = ROOT / "requirements" / "run.txt"
VISION = ("numpy", "opencv_python_headless", "dlib_bin", "onnxruntime", "onnx", "pillow")
OLDEST = TARGETS[0]
"""A Jetson Nano: Ubuntu 18.04, with uv's own Python."""
OLDEST_PYTHON = "3.11"
OLDEST_SYMBOLS = {"GLIBC": (2, 27), "GLIBCXX": (3, 4, 25), "CXXABI": (1, 3, 11), "GCC": (8, 0, 0)}
"""The newest that its glibc 2.27, libstdc++ and libgcc (GCC 8) have."""

SLOW_CNN = "boxes_and_scores and not low or cut_by_the_edge or skipped or too_small or promised_size or leaves_nothing"
STAGES = {
    "camera, photos, motion, following, dlib's files, gallery": [
        *("test_capture.py", "test_pictures.py", "test_photos.py", "test_motion.py", "test_track.py"),
        *("test_weights.py", "test_gallery.py"),
    ],
    "converted networks": ["test_onnx_build.py"],
    "detector cnn": ["test_cnn.py", "-k", f"not ({SLOW_CNN})"],
    "detector yunet": ["test_yunet.py", "-k", "not clip and not never_written and not 6.0 and not shows_a_face"],
    "scaling, detector hog, landmarks, alignment, encoder, quality": ["test_engine.py", "test_quality.py"],
    "backends and their self-test": ["test_backends.py", "-k", "not wrong_in_any_way"],
    "backends that die or lie, in real children": [
        *("../integration/test_backend_fallback.py", "-k", "(kills_its_process and SIGSEGV) or lies"),
    ],
}


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    """With all that the lock says, and the tools that run tests."""
    guest = Guest()
    for lock in ("run.txt", "dev.txt"):
        done = guest.install(lock)
        if "error sending request" in done.stdout:
            pytest.skip(f"the package index cannot be reached: {done.stdout[-300:]}")
        assert done.returncode == 0, done.stdout
    yield guest
    guest.close()


def test_the_lock_installs_from_wheels(guest: Guest) -> None:
    pins = wanted(read_lock(RUN), OLDEST, guest.python_version)
    found = {path.name.removesuffix(".dist-info") for path in guest.packages.glob("*.dist-info")}
    assert {pin.name.replace("-", "_") + "-" + str(pin.requirement.specifier).lstrip("=") for pin in pins} <= found
    done = guest.run("-m", "edge_face", "--version")
    assert done.returncode == 0, done.stdout


def test_every_locked_wheel_is_one_that_a_jetson_nano_loads(guest: Guest) -> None:
    """Not by its tag alone: by the symbols that its libraries ask the system for."""
    pins = [pin for pin in wanted(read_lock(RUN), OLDEST, OLDEST_PYTHON) if pin.name not in PURE_SDISTS]
    with TemporaryDirectory(dir=CACHE) as place:
        folder, lock = Path(place) / "packages", Path(place) / "lock"
        lines = (" --hash=sha256:".join([pin.spec, *pin.hashes]) for pin in pins)
        lock.write_text("\n".join(lines))
        command = [*pip_install(OLDEST, OLDEST_PYTHON, folder), "--require-hashes", "--requirement", str(lock)]
        subprocess.run(command, check=True, timeout=900)
        libraries = [path for path in folder.rglob("*") if re.search(r"\.so(\.[\d.]+)?$", path.name)]
        assert len(libraries) > 100
        assert {path.name: found for path in libraries if (found := too_new(path))} == {}
        if guest.python_version == OLDEST_PYTHON:  # then what is tested below is what that board gets, too
            for name in VISION:
                (one,), (other,) = (packages.glob(f"{name}-*.dist-info/WHEEL") for packages in (folder, guest.packages))
                assert one.read_text() == other.read_text()


def too_new(library: Path) -> list[str]:
    """What a library needs of the system's own libraries and the oldest board has not."""
    command = ["readelf", "--file-header", "--version-info", "--wide", library]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "AArch64" in told
    found = []
    for needed in told.partition("Version needs section")[2].split("File: ")[1:]:
        if not re.match(r"\S+-[0-9a-f]{8,}\.so", needed):  # a wheel brings this one itself
            found += re.findall(r"Name: ([A-Z]+)_([\d.]+) ", needed)
    newest = OLDEST_SYMBOLS.get
    return [f"{name}_{text}" for name, text in found if tuple(map(int, text.split("."))) > newest(name, (99,))]


@pytest.mark.parametrize("stages", STAGES)
def test_the_visions_tests_pass_there(stages: str, guest: Guest) -> None:
    arguments = [f"tests/unit/{each}" if each.endswith(".py") else each for each in STAGES[stages]]
    done = guest.run(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=900", "-m", "not slow", "--color=no"), *arguments
    )
    print(done.stdout)
    assert done.returncode == 0
    assert re.search(r"^\d+ passed", done.stdout, re.MULTILINE)


def test_each_backend_passes_its_self_test_in_a_child_of_its_own(guest: Guest) -> None:
    done = guest.run("-m", "edge_face", "models", "--json")
    assert done.returncode == 0, done.stdout
    rows = json.loads(done.stdout)["backends"]
    assert [(row["name"], row["finding"]) for row in rows] == [(name, "passed its self-test") for name in BACKENDS]


@pytest.mark.parametrize("detector", answers.BACKENDS)
def test_every_answer_is_the_one_of_this_machine(detector: str, guest: Guest, request: pytest.FixtureRequest) -> None:
    program = ["-m", "tests.support.answers", detector]
    if detector == "yunet":
        program.append(str(request.getfixturevalue("data") / "models" / YUNET_FILE))
    done = guest.run(*program)
    assert done.returncode == 0, done.stdout
    here = subprocess.run([sys.executable, *program], cwd=ROOT, capture_output=True, check=True)
    expected: dict[str, list[dict[str, Any]]] = json.loads(here.stdout)
    found: dict[str, list[dict[str, Any]]] = json.loads(done.stdout)
    assert found.keys() == expected.keys()
    for backend, faces in expected.items():
        assert [face["frame"] for face in faces] == [0, 1, 2], "each photo shows one face"
        for one, other in zip(faces, found[backend], strict=True):
            for key in ("frame", "track", "box", "quality"):
                assert other[key] == one[key], backend
            assert other["confidence"] == pytest.approx(one["confidence"], abs=0.01)
            assert np.linalg.norm(np.subtract(one["encoding"], other["encoding"])) < 1e-5, backend
