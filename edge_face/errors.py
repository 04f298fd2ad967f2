"""Every error edge-face raises on purpose, in one tree.

    EdgeFaceError                 code, message
    ├── ConfigError               all problems of a configuration at once
    ├── CaptureError              a source cannot be opened or read
    ├── ModelError                a model is missing, broken or gives wrong answers
    ├── WorkerError               a child process died, hung or is not there
    ├── ImageError                an uploaded picture cannot be used (no face, two faces, corrupt, ...)
    ├── RequestError              a request is malformed
    ├── NotFoundError             no such person, event, camera, token
    ├── ConflictError             it would contradict what is stored
    ├── StoreError                the database cannot be read or written
    │   └── TemplateKeyError      the key of its templates is missing, or another one
    ├── BackupError               a backup cannot be made, or is not what it should be
    └── RetryLater, AskAgain,     what a sink says of one delivery (publish.py)
        Refused, SwitchedOff

`code` is the stable word that programs read (`{"error": code}`), `message` the sentence that people read; `str(error)`
is the same as a part of a longer line.
"""

from __future__ import annotations

from collections.abc import Sequence


class EdgeFaceError(Exception):
    """Base of all errors raised on purpose; anything else is a bug."""

    code = "error"

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message + ("" if message.endswith((".", "!", "?")) else ".")
        if code is not None:
            self.code = code


class ConfigError(EdgeFaceError):
    """`problems` holds every finding, each as `[section] key: reason`."""

    code = "config"

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class CaptureError(EdgeFaceError):
    code = "camera"


class ModelError(EdgeFaceError):
    code = "model"


class WorkerError(EdgeFaceError):
    code = "engine_unavailable"


class ImageError(EdgeFaceError):
    """Codes: `no_face`, `several_faces`, `low_quality`, `bad_image`, `too_large`, `unsupported_format`."""

    code = "bad_image"


class RequestError(EdgeFaceError):
    code = "bad_request"


class NotFoundError(EdgeFaceError):
    code = "not_found"


class ConflictError(EdgeFaceError):
    code = "conflict"


class StoreError(EdgeFaceError):
    """`reason` says what is wrong, like `the disk is full`, where that is known; without paths, so for everybody."""

    code = "storage_unavailable"

    def __init__(self, message: str, code: str | None = None, *, reason: str = "") -> None:
        super().__init__(message, code)
        self.reason = reason


class TemplateKeyError(StoreError):
    code = "template_key"


class BackupError(EdgeFaceError):
    """Code `passphrase`: it is missing or wrong."""

    code = "backup"
