"""The self-test, the order of backends, the cache of converted models, and the memory of crashes."""

from __future__ import annotations

import hashlib
import json
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edge_face import backends, settings
from edge_face.backends import Backends
from edge_face.errors import ModelError
from edge_face.vision import models
from edge_face.vision.cache import ModelCache, cache_folder
from edge_face.vision.interfaces import Encoder
from edge_face.vision.known_answer import KNOWN_ANSWER, self_test
from edge_face.vision.known_answer import test_chip as fixed_chip

Encodings = npt.NDArray[np.float32]


class Spoilt:
    """The real encoder with its answers changed."""

    name = "spoilt"

    def __init__(self, encoder: Encoder, change: Callable[[Encodings], Encodings]) -> None:
        self._encoder = encoder
        self._change = change

    def encode(self, chips: npt.NDArray[np.uint8]) -> Encodings:
        return self._change(self._encoder.encode(chips))


def one_number_off(found: Encodings) -> Encodings:
    found[:, 77] += 0.001
    return found


SPOILT: dict[str, tuple[Callable[[Encodings], Encodings], str]] = {
    "nan": (lambda found: found * np.float32(np.nan), "no numbers"),
    "one_nan": (lambda found: np.where(np.arange(128) == 100, np.float32(np.nan), found), "no numbers"),
    "half": (lambda found: found / 2, r"length 0\.66\d\d, not 1\.32"),
    "zero": (lambda found: found * 0, "length 0"),
    "other_order": (lambda found: found[:, ::-1], "off by"),
    "one_number": (one_number_off, "off by|length"),
    "half_precision": (lambda found: found.astype(np.float16).astype(np.float32), "off by|length"),
    "short": (lambda found: found[:, :127], "no numbers"),
    "batch_reversed": (lambda found: found[::-1], "off by|length"),
    "only_batches_right": (lambda found: found if len(found) > 1 else -found, "for one face and for two"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_an_encoder_that_is_wrong_in_any_way_is_refused(kind: str, loaded_models: models.Models) -> None:
    change, reason = SPOILT[kind]
    with pytest.raises(ModelError, match=f"spoilt.*({reason})"):
        self_test(Spoilt(loaded_models.encoder, change))


@pytest.mark.parametrize("backend", models.BACKENDS)
def test_every_backend_passes_here_and_can_be_named(backend: str) -> None:
    loaded = models.load(settings.Engine(backend=backend))
    assert (loaded.backend, loaded.encoder.name, loaded.refused) == (backend, backend, ())
    assert loaded.encode_ms > 0
    assert np.linalg.norm(loaded.encoder.encode(fixed_chip()[np.newaxis])[0] - np.array(KNOWN_ANSWER)) < 1e-5


def test_auto_is_the_fastest_and_tells_each_try() -> None:
    tried: list[str] = []
    assert models.load(settings.Engine(), trying=tried.append).backend == "onnxruntime"
    assert tried == ["onnxruntime"]
    tried.clear()
    assert models.load(settings.Engine(), ["onnxruntime"], tried.append).backend == "opencv"
    assert tried == ["opencv"]


def test_auto_goes_on_when_a_library_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As onnxruntime is not for Python 3.14: no fault, so nothing is refused."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    loaded = models.load(settings.Engine())
    assert (loaded.backend, loaded.refused) == ("opencv", ())


class TestRefusal:
    @pytest.fixture
    def broken(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """ONNX Runtime as on a board where its session cannot be made."""

        def fail(*_args: object) -> None:
            raise RuntimeError("illegal hardware\nand a stack trace")

        monkeypatch.setattr("edge_face.vision.onnx_backend.OrtSession.__init__", fail)

    def test_auto_falls_back_and_says_so(self, broken: None, caplog: pytest.LogCaptureFixture) -> None:
        loaded = models.load(settings.Engine())
        assert loaded.backend == "opencv"
        assert loaded.refused == (("onnxruntime", "RuntimeError: illegal hardware"),)
        assert [record.levelno for record in caplog.records if "onnxruntime" in record.message] == [logging.ERROR]

    def test_a_backend_that_was_named_is_not_replaced(self, broken: None) -> None:
        with pytest.raises(ModelError, match=r"onnxruntime cannot be used: RuntimeError: illegal hardware$"):
            models.load(settings.Engine(backend="onnxruntime"))

    def test_nothing_left_is_an_error_that_names_all(self, broken: None) -> None:
        with pytest.raises(ModelError, match=r"onnxruntime: RuntimeError.*opencv: It killed.*face_recognition: It kil"):
            models.load(settings.Engine(), ["opencv", "face_recognition"])


class TestCache:
    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        path = tmp_path / "net.dat"
        path.write_bytes(b"weights")
        return path

    @staticmethod
    def convert(content: bytes, name: str) -> bytes:
        return b"model of " + content + b" in " + name.encode()

    def never(self, content: bytes, name: str) -> bytes:
        raise AssertionError("converted again")

    def test_a_model_is_converted_once(self, source: Path, tmp_path: Path) -> None:
        folder = tmp_path / "new" / "cache"
        assert not ModelCache(folder, 1).has(source)
        assert ModelCache(folder, 1).get(source, self.convert) == b"model of weights in net.dat"
        assert ModelCache(folder, 1).get(source, self.never) == b"model of weights in net.dat"
        assert ModelCache(folder, 1).has(source)
        (file,) = folder.iterdir()
        assert hashlib.sha256(b"weights").hexdigest() in file.name
        assert folder.stat().st_mode & 0o777 == 0o700

    def test_other_weights_or_another_converter_make_another_model_and_the_old_one_goes(
        self, source: Path, tmp_path: Path
    ) -> None:
        ModelCache(tmp_path / "cache", 1).get(source, self.convert)
        ModelCache(tmp_path / "cache", 2).get(source, lambda content, name: b"new")
        assert ModelCache(tmp_path / "cache", 2).get(source, self.never) == b"new"
        source.write_bytes(b"others")
        assert ModelCache(tmp_path / "cache", 2).get(source, self.convert) == b"model of others in net.dat"
        assert len(list((tmp_path / "cache").iterdir())) == 1

    @pytest.mark.parametrize("damage", ["empty", "short", "bit", "other"])
    def test_a_damaged_file_is_made_again(self, damage: str, source: Path, tmp_path: Path) -> None:
        cache = ModelCache(tmp_path / "cache", 1)
        cache.get(source, self.convert)
        (file,) = (tmp_path / "cache").iterdir()
        whole = file.read_bytes()
        flipped = whole[:-1] + bytes([whole[-1] ^ 1])
        file.write_bytes({"empty": b"", "short": whole[:-5], "bit": flipped, "other": b"x" * 100}[damage])
        assert not cache.has(source)
        assert cache.get(source, self.convert) == b"model of weights in net.dat"
        assert file.read_bytes() == whole

    def test_without_a_folder_that_can_be_written_it_still_works(self, source: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        for folder in (None, tmp_path / "file" / "cache", Path("/proc/edge-face")):
            assert ModelCache(folder, 1).get(source, self.convert) == b"model of weights in net.dat"

    def test_weights_that_cannot_be_read_are_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"gone\.dat cannot be read"):
            ModelCache(tmp_path, 1).get(tmp_path / "gone.dat", self.convert)

    def test_the_folder_is_systemds_or_xdgs_or_in_the_home(self, monkeypatch: pytest.MonkeyPatch) -> None:
        both = {"CACHE_DIRECTORY": "/var/cache/edge-face:/other", "XDG_CACHE_HOME": "/x"}
        assert cache_folder(both) == Path("/var/cache/edge-face")
        assert cache_folder({"XDG_CACHE_HOME": "/x"}) == Path("/x/edge-face")
        monkeypatch.setenv("HOME", "/home/somebody")
        assert cache_folder({"XDG_CACHE_HOME": "relative"}) == Path("/home/somebody/.cache/edge-face")


class TestCrashes:
    @pytest.fixture
    def memory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path))
        return tmp_path / "crashed-backends.json"

    @pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGILL, signal.SIGBUS, signal.SIGABRT])
    def test_a_crash_is_remembered(self, number: signal.Signals, memory: Path) -> None:
        known = Backends.remembered()
        assert known.skip == ()
        assert known.died("onnxruntime", -number)
        assert known.skip == ("onnxruntime",)
        assert Backends.remembered().skip == ("onnxruntime",)
        (name, reason), *_ = Backends.remembered().crashed
        assert (name, number.name in reason) == ("onnxruntime", True)

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
    def test_who_ends_a_child_by_hand_blames_no_backend(self, number: signal.Signals, memory: Path) -> None:
        assert not Backends.remembered().died("onnxruntime", -number)
        assert not memory.exists()

    @pytest.mark.parametrize("code", [None, 1])
    def test_a_hang_or_an_exit_counts_only_until_the_next_start(self, code: int | None, memory: Path) -> None:
        known = Backends.remembered()
        assert known.died("opencv", code)
        assert known.skip == ("opencv",)
        assert Backends.remembered().skip == ()

    def test_only_the_first_death_is_news(self, memory: Path) -> None:
        known = Backends()
        assert known.died("opencv", -11)
        assert not known.died("opencv", -11)
        assert not known.died("", -11)

    def test_another_version_is_another_chance(self, memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        Backends.remembered().died("onnxruntime", -11)
        monkeypatch.setattr(backends.metadata, "version", lambda package: "99")
        assert Backends.remembered().skip == ()

    def test_another_processor_is_another_chance(self, memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        Backends.remembered().died("onnxruntime", -11)
        monkeypatch.setattr(backends, "_processor", lambda: "aarch64 0xd0b")
        assert Backends.remembered().skip == ()

    def test_one_that_works_is_forgiven(self, memory: Path) -> None:
        known = Backends.remembered()
        known.died("onnxruntime", -11)
        known.died("opencv", -4)
        known.forgive("onnxruntime")
        assert Backends.remembered().skip == ("opencv",)

    def test_when_all_crashed_all_are_tried_again(self, memory: Path) -> None:
        known = Backends.remembered()
        for name in models.BACKENDS:
            known.died(name, -11)
        assert Backends.remembered().skip == ()

    @pytest.mark.parametrize(
        "text", ["", "no json", "[]", '{"onnxruntime": 3}', '{"onnxruntime": ["x"]}', '{"x": ["", ""]}']
    )
    def test_a_memory_that_cannot_be_read_is_none(self, text: str, memory: Path) -> None:
        memory.write_text(text)
        assert Backends.remembered().skip == ()

    def test_a_memory_that_cannot_be_written_is_no_fault(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CACHE_DIRECTORY", "/proc/edge-face")
        known = Backends.remembered()
        assert known.died("onnxruntime", -11)
        assert known.skip == ("onnxruntime",)

    def test_the_file_is_json_with_the_reason(self, memory: Path) -> None:
        Backends.remembered().died("onnxruntime", -signal.SIGILL)
        ((key, reason),) = json.loads(memory.read_text()).values()
        assert "onnxruntime" in key
        assert reason.endswith("was killed by SIGILL.")

    def test_a_refusal_is_logged_once_for_all_children(self, caplog: pytest.LogCaptureFixture) -> None:
        known = Backends()
        for _ in range(3):
            known.tell("opencv", (("onnxruntime", "It is off by 0.2."),))
        assert [record.levelno for record in caplog.records] == [logging.ERROR]
