"""Nothing is ever written to a path that an upload names: the real daemon, watched while hostile names come in."""

from __future__ import annotations

import io
import os
import stat
import warnings
import zipfile
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, write_config
from tests.support.uploads import eileen, encoded

ROOT = Path(__file__).parents[2]
_WATCH = """
import os, sys

log = os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
changing = {{"os.mkdir", "os.rename", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.utime"}}


def watch(event, args):
    if event == "open" and (args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        path = os.readlink(f"/proc/self/fd/{{args[0]}}") if isinstance(args[0], int) else args[0]
        os.write(log, f"{{path}}\\n".encode("utf-8", "replace"))
    elif event in changing:
        os.write(log, f"{{args[:2]}}\\n".encode("utf-8", "replace"))


sys.addaudithook(watch)
"""
"""Every file that a Python process, parent or child, opens for writing."""
IN_MEMORY = "/memfd:upload (deleted)"


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def hostile_zip(outside: Path, photo: bytes) -> bytes:
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    under_link = zipfile.ZipInfo("link/evil.jpg")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # duplicate names
        archive.writestr(link, str(outside))
        archive.writestr(under_link, photo)
        names = [
            "../evil.jpg",
            "../../../evil.jpg",
            f"{outside}/evil.jpg",
            "a\\..\\evil.jpg",
            "C:/evil.jpg",
            "evil.jpg",
        ]
        names += ["~/evil.jpg", "evil.jpg", "evil.jpg/", "$HOME.jpg", "a/b/evil.jpg", ".", "evil.jpg\0.txt"]
        for name in names:
            archive.writestr(name, photo)
    return out.getvalue()


def test_hostile_names_touch_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("site", "cwd", "tmp", "home", "outside", "box"):
        (tmp_path / name).mkdir()
    log = tmp_path / "site" / "written"
    (tmp_path / "site" / "sitecustomize.py").write_text(_WATCH.format(log=str(log)))
    config = write_config(tmp_path / "box", {"camera": {"source": tmp_path / "missing.avi"}})
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path / "site"), str(ROOT))))
        patch.setenv("TMPDIR", str(tmp_path / "tmp"))
        patch.setenv("HOME", str(tmp_path / "home"))
        patch.setenv("PYTHONDONTWRITEBYTECODE", "1")
        patch.chdir(tmp_path / "cwd")
        with Daemon(config) as daemon:
            daemon.wait_for("failed", "ok", "degraded")
            auth, photo = daemon.auth, encoded(eileen(), "JPEG")
            # The first photo starts the child, which keeps converted models in its cache.
            assert daemon.post("/api/v1/recognize", files={"image": photo}).status_code == 200
            before = tree(tmp_path)
            log.write_text("")
            assert auth
            for route, name in (("/api/v1/people", "../../evil"), ("/register", f"{tmp_path}/outside/evil")):
                files = {"image": ("../../evil.jpg", photo)}
                assert daemon.post(route, data={"name": name, "force": "1"}, files=files).ok
            for file in (f"{tmp_path}/outside/evil.jpg", "..\\evil.jpg"):
                assert daemon.post("/api/v1/recognize", files={"image": (file, photo)}).status_code == 200
                assert daemon.post("/process-frame/", files={"frame": (file, photo)}).status_code == 200
            archive = hostile_zip(tmp_path / "outside", photo)
            for route in ("/api/v1/people/batch", "/register-faces"):
                answer = daemon.post(route, data={"force": "1"}, files={"zip": ("../../evil.zip", archive)})
                assert answer.status_code == 200
                refused = answer.json().get("items") or answer.json()["result"]["failed"]
            assert len(refused) == 10
            written = log.read_text().splitlines()
            after = tree(tmp_path)
            daemon.end()
    assert after == before
    assert not [path for path in after if "evil" in path]
    assert written.count(IN_MEMORY) == 2, "a ZIP is in no folder"
    allowed = (os.devnull, IN_MEMORY)
    assert not [path for path in written if not path.startswith(str(tmp_path / "box")) and path not in allowed], written
    assert not [path for path in written if "evil" in path]
    assert not (tmp_path.parent / "evil.jpg").exists()
