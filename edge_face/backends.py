"""Which backends have killed a child process on this machine, so that none of them is tried again and again.

One `Backends` is shared by all children of a parent. What crashed is remembered in a file, so that the next start does
not crash first; another version of the library, of Python, or another processor is another chance.
"""

from __future__ import annotations

import json
import logging
import platform
import signal
import sys
from importlib import metadata
from pathlib import Path

from edge_face.vision.cache import cache_folder
from edge_face.vision.models import BACKENDS

_log = logging.getLogger(__name__)

_FILE = "crashed-backends.json"
_PACKAGES = {
    "onnxruntime": ("onnxruntime",),
    "opencv": ("opencv-python-headless", "opencv-python"),
    "face_recognition": ("dlib-bin", "dlib"),
}
_CRASHES = frozenset(
    {signal.SIGSEGV, signal.SIGILL, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGTRAP, signal.SIGSYS}
)
"""How wrong machine code ends. SIGKILL is not among them: that is the kernel short of memory, or a person."""


_KILLS = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
"""Somebody ended the child; no backend did."""


class Backends:
    """`memory` is the file that outlives the process; None: nothing does."""

    def __init__(self, memory: Path | None = None) -> None:
        self._memory = memory
        self._crashed: dict[str, str] = {}
        self._told: set[tuple[str, str]] = set()

    @classmethod
    def remembered(cls) -> Backends:
        """With what earlier runs learnt, beside the cached models."""
        folder = cache_folder()
        backends = cls(folder / _FILE if folder else None)
        backends._load()
        return backends

    @property
    def skip(self) -> tuple[str, ...]:
        """Backends that `auto` must not try."""
        return tuple(self._crashed)

    @property
    def crashed(self) -> tuple[tuple[str, str], ...]:
        """Those, each with the reason as a sentence."""
        return tuple(self._crashed.items())

    def died(self, backend: str, code: int | None) -> bool:
        """A child ended while it tried this backend, with that exit code (negative: a signal; None: it hung).

        Returns whether the backend is to blame, and is skipped from now on.
        """
        if backend not in BACKENDS or backend in self._crashed or (code is not None and -code in _KILLS):
            return False
        self._crashed[backend] = f"The process that tried {version(backend) or backend} {_ended(code)}."
        _log.error("the backend %s is not tried again: %s", backend, self._crashed[backend])
        if code is not None and -code in _CRASHES:  # what else ends or hangs a child may be gone at the next start
            self._save()
        return True

    def forgive(self, backend: str) -> None:
        """It works now."""
        if self._crashed.pop(backend, None):
            self._save()

    def tell(self, backend: str, refused: tuple[tuple[str, str], ...]) -> None:
        """Say in the log, once, that a child runs on `backend` because others failed their self-test."""
        for name, reason in refused:
            if (name, reason) not in self._told:
                self._told.add((name, reason))
                _log.error("faces are encoded by %s, because %s was refused: %s", backend, name, reason)

    def _load(self) -> None:
        try:
            stored = json.loads(self._memory.read_text(encoding="utf-8")) if self._memory else {}
            found = {str(name): (str(key), str(reason)) for name, (key, reason) in stored.items() if name in BACKENDS}
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, AttributeError) as error:
            _log.warning("what is known of crashed backends cannot be read: %s", error)
            return
        self._crashed = {name: reason for name, (key, reason) in found.items() if key == _key(name)}
        if len(self._crashed) == len(BACKENDS):  # then nothing works; trying again costs nothing
            self._crashed = {}
        for name, reason in self._crashed.items():
            _log.error("the backend %s is not tried, `edge-face models` tries it again: %s", name, reason)

    def _save(self) -> None:
        if not self._memory:
            return
        text = json.dumps({name: [_key(name), reason] for name, reason in self._crashed.items()}, indent=1)
        try:
            self._memory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = self._memory.with_suffix(".new")
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(self._memory)
        except OSError as error:
            _log.warning("the crash of a backend cannot be remembered in %s: %s", self._memory, error.strerror)


def version(backend: str) -> str:
    """Of the package that brings it, e.g. `onnxruntime 1.20.1`; empty when none is installed."""
    for package in _PACKAGES[backend]:
        try:
            return f"{package} {metadata.version(package)}"
        except metadata.PackageNotFoundError:
            continue
    return ""


def _ended(code: int | None) -> str:
    if code is None:
        return "did not answer"
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}" if -code in _CRASHES else f"was killed by signal {-code}"
    return f"ended with exit code {code}"


def _key(backend: str) -> str:
    """What a crash depends on."""
    return " / ".join((version(backend), f"Python {platform.python_version()}", sys.platform, _processor()))


def _processor() -> str:
    """Architecture and the first core's model or part number, as Linux tells them: an SD card moves between boards."""
    names = ("model name", "CPU part", "CPU implementer")
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    return " ".join([platform.machine(), *(facts[name] for name in names if name in facts)])
