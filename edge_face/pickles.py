"""Reads numpy arrays out of a pickle without running anything that the file names.

A pickle is a program: it says which function of which module is to be called with what. Here it is given stand-ins of
our own for the few names that numpy writes, and an error for every other name. So the worst that a hostile file can do
is to hold wrong numbers, or more of them than fit.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_face.errors import RequestError

MAX_BYTES = 1 << 30
_LARGEST = 10.0  # dlib's numbers are below 1


class _Type:
    """Stands for numpy.dtype. Only plain little- and big-endian numbers."""

    def __init__(self, code: object, *_flags: object) -> None:
        if not isinstance(code, str) or code not in ("f4", "f8", "f2", "i1", "u1", "i2", "i4", "i8"):
            raise pickle.UnpicklingError(f"an array of {str(code)[:20]!r}")
        self.code, self.order = code, "<"

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        if order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("an unknown byte order")
        self.order = order

    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.code)


class _Array:
    """Stands for numpy.ndarray, until its numbers are there."""

    def __init__(self, *_args: object) -> None:
        self.values: npt.NDArray[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        _version, shape, kind, fortran, data = state
        self.values = _filled(data, kind, shape, "F" if fortran else "C")


def _filled(data: Any, kind: Any, shape: Any, order: str) -> npt.NDArray[Any]:
    if not isinstance(kind, _Type) or not isinstance(data, bytes | bytearray) or not isinstance(shape, tuple):
        raise pickle.UnpicklingError("a damaged array")
    values = np.frombuffer(bytes(data), kind.dtype()).reshape(shape, order="F" if order == "F" else "C")
    return np.array(values, np.float64)


def _from_buffer(data: Any, kind: Any, shape: Any, order: str) -> _Array:
    array = _Array()
    array.values = _filled(data, kind, shape, order)
    return array


def _scalar(kind: Any, data: Any) -> float:
    return float(_filled(data, kind, (), "C"))


def _encode(text: Any, coding: Any) -> bytes:
    """How the oldest pickles write bytes."""
    if not isinstance(text, str) or coding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("damaged bytes")
    return text.encode("latin-1")


_STAND_INS: dict[tuple[str, str], Any] = {("numpy", "ndarray"): _Array, ("numpy", "dtype"): _Type}
for _core in ("numpy.core", "numpy._core"):
    _STAND_INS[f"{_core}.multiarray", "_reconstruct"] = _Array
    _STAND_INS[f"{_core}.multiarray", "scalar"] = _scalar
    _STAND_INS[f"{_core}.numeric", "_frombuffer"] = _from_buffer
_STAND_INS["_codecs", "encode"] = _encode


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it wants {module}.{name}, which no list of encodings needs") from None


def read(data: bytes) -> Any:
    """What the pickle holds: dicts, lists, strings, numbers, and float64 arrays. Raises RequestError (`bad_pickle`)."""
    if len(data) > MAX_BYTES:
        raise RequestError("The file is larger than 1 GiB.", "bad_pickle")
    try:
        return _plain(_Reader(io.BytesIO(data)).load())
    except pickle.UnpicklingError as error:
        raise RequestError(f"The file cannot be read: {error}.", "bad_pickle") from None
    except Exception as error:  # damaged pickles raise nearly anything
        raise RequestError(f"The file is damaged ({type(error).__name__}).", "bad_pickle") from None


def _plain(value: Any, depth: int = 0) -> Any:
    if depth > 20:
        raise pickle.UnpicklingError("it is nested too deeply")
    if isinstance(value, dict):
        return {_plain(key, depth + 1): _plain(each, depth + 1) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each, depth + 1) for each in value]
    if isinstance(value, _Array):
        if value.values is None:
            raise pickle.UnpicklingError("an array without numbers")
        return value.values
    if value is None or isinstance(value, str | bytes | int | float):
        return value
    raise pickle.UnpicklingError("it holds something else than names and numbers")


def face_db(data: bytes) -> dict[str, list[npt.NDArray[np.float32]]]:
    """Name to encodings (128,), from a dict of name to one encoding, a list of them, or an array (n, 128).

    Raises RequestError (`bad_pickle`).
    """
    content = read(data)
    if isinstance(content, dict) and {"encodings", "names"} <= set(content):  # two lists of one length, as tutorials do
        pairs = list(zip(content["names"], content["encodings"], strict=False))
    elif isinstance(content, dict):
        pairs = list(content.items())
    else:
        raise RequestError("The file holds no dict of names.", "bad_pickle")
    found: dict[str, list[npt.NDArray[np.float32]]] = {}
    for name, value in pairs:
        if not isinstance(name, str):
            raise RequestError("A key of the dict is no name.", "bad_pickle")
        found.setdefault(name, []).extend(_encodings(name, value))
    return found


def _encodings(name: str, value: Any) -> list[npt.NDArray[np.float32]]:
    try:
        rows = np.array(value, np.float64).reshape(-1, 128)
    except (TypeError, ValueError):
        raise RequestError(f"{name}: no list of 128-D encodings.", "bad_pickle") from None
    if not (np.abs(rows) < _LARGEST).all():  # NaN is not less
        raise RequestError(f"{name}: an encoding has an impossible number.", "bad_pickle")
    return list(rows.astype(np.float32))
