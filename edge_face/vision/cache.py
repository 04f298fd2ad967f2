"""Converted models on disk, so that a start does not convert them again.

A file's name holds the SHA-256 of the weights that it was made from and the converter's version, so it can never stand
for others. It holds its own SHA-256 too: a file that power loss cut short, or a tired SD card changed, is made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from edge_face.errors import ModelError

_log = logging.getLogger(__name__)

_MAGIC = b"edge-face model\n"
_DIGEST_SIZE = hashlib.sha256().digest_size
_SUFFIX = ".model"


def cache_folder(environ: Mapping[str, str] | None = None) -> Path | None:
    """Where cached files go: systemd's CacheDirectory=, else XDG_CACHE_HOME or ~/.cache. None without a home."""
    variables = os.environ if environ is None else environ
    given = variables.get("CACHE_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given)
    base = variables.get("XDG_CACHE_HOME", "")
    if Path(base).is_absolute():  # the XDG specification: a relative one is to be ignored
        return Path(base) / "edge-face"
    try:
        return Path.home() / ".cache" / "edge-face"
    except RuntimeError:
        return None


def sha256(path: Path) -> str:
    """Of a file's content, in hex. Raises ModelError."""
    return hashlib.sha256(_read(path)).hexdigest()


class ModelCache:
    """`folder` None, or one that cannot be written: models are converted at every start, and nothing else changes."""

    def __init__(self, folder: Path | None, version: int) -> None:
        self._folder = folder
        self._version = version

    def get(self, weights: Path, convert: Callable[[bytes, str], bytes]) -> bytes:
        """The model made from a weights file by `convert(content, name)`, which may raise ModelError, as this does."""
        content = _read(weights)
        path = self._path(weights, content)
        model = _verified(path) if path else None
        if model is None:
            model = convert(content, weights.name)
            if path:
                self._write(path, model, weights.stem)
        return model

    def has(self, weights: Path) -> bool:
        """Whether the model made from this file is here, whole. Raises ModelError."""
        path = self._path(weights, _read(weights))
        return path is not None and _verified(path) is not None

    def _path(self, weights: Path, content: bytes) -> Path | None:
        if self._folder is None:
            return None
        digest = hashlib.sha256(content).hexdigest()
        return self._folder / f"{weights.stem}-{digest}-{self._version}{_SUFFIX}"

    def _write(self, path: Path, model: bytes, stem: str) -> None:
        """Under its name only when it is whole; those of other versions and other weights go."""
        temporary = ""
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=_SUFFIX, delete=False) as file:
                temporary = file.name
                file.write(_MAGIC + hashlib.sha256(model).digest() + model)
            Path(temporary).replace(path)
            for other in path.parent.glob(f"{stem}-*{_SUFFIX}"):
                if other != path:
                    other.unlink()
        except OSError as error:
            _log.info("the converted model cannot be kept in %s: %s", path.parent, error.strerror)
            with contextlib.suppress(OSError):
                if temporary:
                    Path(temporary).unlink()


def _verified(path: Path) -> bytes | None:
    """The model in a cache file; None when there is none, or it is not what was written."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    begin = len(_MAGIC) + _DIGEST_SIZE
    model = content[begin:]
    if content[:begin] != _MAGIC + hashlib.sha256(model).digest():
        _log.warning("the cached model %s is damaged and is made again", path)
        return None
    return model


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"The weights file {path} cannot be read: {error.strerror}.") from None
