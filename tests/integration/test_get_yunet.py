"""scripts/get-yunet: a file:// address, wrong files, and where the file ends up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_face import config
from edge_face.settings import YUNET_FILE

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def source(data: Path) -> Path:
    path = data / "models" / YUNET_FILE
    if not path.is_file():
        pytest.skip(f"YuNet's model file is not at {path}")
    return path


def get_yunet(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """The Python part, with this Python: the shell part only sets up .venv/."""
    command = [sys.executable, str(ROOT / "scripts" / "get_yunet.py"), *args]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=60, check=False)


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_it_ends_up_beside_the_configuration_which_then_uses_it(source: Path, tmp_path: Path) -> None:
    ini = tmp_path / "etc" / "config.ini"
    ini.parent.mkdir()
    ini.write_text("[engine]\ndetector = yunet\n")
    done = get_yunet(tmp_path, "--config", str(ini), source.as_uri())
    assert (done.returncode, done.stderr) == (0, "")
    target = ini.parent / "models" / YUNET_FILE
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_mode & 0o777 == 0o644
    assert done.stdout.endswith(f"[engine]\nyunet_model = {target}\n")
    assert config.load(ini, {}).engine.yunet_model == str(target)


def test_a_path_can_be_given_and_the_printed_lines_work(source: Path, tmp_path: Path) -> None:
    done = get_yunet(tmp_path, "--to", "yunet.onnx", source.as_uri())
    assert done.returncode == 0, done.stderr
    (tmp_path / "config.ini").write_text(done.stdout[done.stdout.index("[engine]") :])
    assert config.load(tmp_path / "config.ini", {}).engine.yunet_model == str(tmp_path / "yunet.onnx")


def test_a_wrong_file_is_refused_and_deleted_and_a_good_one_stays(source: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_bytes(source.read_bytes() + b"\0")
    done = get_yunet(tmp_path, wrong.as_uri())
    assert (done.returncode, done.stdout) == (1, "")
    assert "its SHA-256 is" in done.stderr
    assert done.stderr.count("\n") == 1
    assert everything(tmp_path) == ["wrong"]
    assert get_yunet(tmp_path, source.as_uri()).returncode == 0
    assert get_yunet(tmp_path, wrong.as_uri()).returncode == 1
    assert (tmp_path / "models" / YUNET_FILE).read_bytes() == source.read_bytes()
    assert everything(tmp_path) == [f"models/{YUNET_FILE}", "wrong"]


@pytest.mark.parametrize(
    "url", ["file:///nowhere/at/all.onnx", "ftp://host/file", "yunet.onnx", "http://127.0.0.1:1/x"]
)
def test_an_address_without_a_file_is_one_line_on_stderr(url: str, tmp_path: Path) -> None:
    done = get_yunet(tmp_path, url)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("get-yunet: ")
    assert everything(tmp_path) == []
