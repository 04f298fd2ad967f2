"""Other programs' face databases, read without running them."""

from __future__ import annotations

import os
import pickle
import pickletools
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_face import pickles
from edge_face.errors import RequestError

FACE = np.random.default_rng(1).normal(0, 0.1, 128)
OTHER = np.random.default_rng(2).normal(0, 0.1, 128)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "content",
    [
        {"katya": FACE, "Ольга": OTHER},
        {"katya": [FACE], "Ольга": [OTHER]},
        {"katya": FACE.tolist(), "Ольга": [list(OTHER)]},
        {"katya": FACE[None], "Ольга": np.asfortranarray(OTHER[None])},
        {"katya": FACE.astype(">f8"), "Ольга": tuple(OTHER)},
        {"names": ["katya", "Ольга"], "encodings": [FACE, OTHER]},
    ],
)
def test_what_programs_write(content: Any, protocol: int) -> None:
    found = pickles.face_db(pickle.dumps(content, protocol))
    assert list(found) == ["katya", "Ольга"]
    np.testing.assert_array_equal(found["katya"], [FACE.astype(np.float32)])
    np.testing.assert_array_equal(found["Ольга"], [OTHER.astype(np.float32)])


def test_names_of_older_and_newer_numpys() -> None:
    data = pickle.dumps({"katya": FACE}, 4)
    names = {argument for _, argument, _ in pickletools.genops(data) if isinstance(argument, str)}
    (core,) = {name for name in names if name.startswith("numpy.") and "core" in name}
    other = core.replace("numpy._core", "numpy.core") if "_core" in core else core.replace("numpy.core", "numpy._core")
    data = data.replace(bytes([len(core)]) + core.encode(), bytes([len(other)]) + other.encode())
    # The frame's length at the start is now wrong by one letter; protocol 4 reads it as a hint of 8 bytes.
    length = int.from_bytes(data[3:11], "little") + len(other) - len(core)
    data = data[:3] + length.to_bytes(8, "little") + data[11:]
    np.testing.assert_array_equal(pickles.face_db(data)["katya"], [FACE.astype(np.float32)])


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_is_run(tmp_path: Path, protocol: int) -> None:
    data = pickle.dumps({"katya": Evil(tmp_path / "made")}, protocol)
    with pytest.raises(RequestError, match="mkdir"):
        pickles.face_db(data)
    assert not (tmp_path / "made").exists()
    pickle.loads(data)  # the file would have done it
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "content",
    [
        [FACE],
        {"katya": "no numbers"},
        {"katya": FACE[:100]},
        {"katya": FACE * np.nan},
        {7: FACE},
        {"katya": np.array([object()])},
        {"katya": np.array(["text"] * 128)},
    ],
)
def test_what_is_no_face_database(content: Any) -> None:
    with pytest.raises(RequestError) as caught:
        pickles.face_db(pickle.dumps(content))
    assert caught.value.code == "bad_pickle"


@given(st.binary(max_size=60), st.integers(0, 1200), st.binary(max_size=8))
def test_a_damaged_file_is_an_error_and_nothing_else(noise: bytes, at: int, patch: bytes) -> None:
    whole = pickle.dumps({"katya": FACE})
    for data in (noise, whole[:at], whole[:at] + patch + whole[at + len(patch) :]):
        with suppress(RequestError):
            found = pickles.face_db(data)
            assert all(np.isfinite(face).all() and face.shape == (128,) for faces in found.values() for face in faces)
