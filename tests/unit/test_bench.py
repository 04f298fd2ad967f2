"""`edge-face bench`: its advice from made figures, the board's own words from a stand-in /sys, its page, --apply."""

from __future__ import annotations

import dataclasses
import stat
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_face import config, settings
from edge_face.bench import apply, html, scene, table
from edge_face.bench.advice import Wishes, advise
from edge_face.bench.results import (
    Advice,
    BenchError,
    Board,
    CameraRun,
    MatchCost,
    Measured,
    Sample,
    SearchCost,
    ThreadCost,
    Timing,
    Vitals,
    timed,
)
from edge_face.bench.vitals import Power, Throttling, name_of
from edge_face.errors import EdgeFaceError
from edge_face.vision.models import Models


def took(name: str, ms: float) -> Timing:
    return Timing(name, ms, ms, ms, 10)


def measured(
    searches: dict[tuple[str, int], float],
    fps: dict[tuple[str, int], float],
    *,
    encode_ms: float = 10.0,
    threads: dict[int, float] | None = None,
    cpus: int = 4,
    matches: Sequence[tuple[int, float]] = ((10, 0.01), (1000, 0.1), (100_000, 5.0)),
    vitals: Vitals | None = None,
    source: str = "a clip",
) -> Measured:
    return Measured(
        board=Board("A board", "aarch64", cpus, 4000, {"edge-face": "1"}),
        source=source,
        width=640,
        height=480,
        backend="onnxruntime",
        quick=False,
        date="2026-01-01T00:00:00+00:00",
        seconds=100.0,
        start_s=2.0,
        stages=(took("encode", encode_ms),),
        searches=tuple(SearchCost(*key, took("detect", ms)) for key, ms in searches.items()),
        threads=tuple(ThreadCost(count, took("", ms)) for count, ms in (threads or {}).items()),
        matches=tuple(MatchCost(faces, took("match", ms)) for faces, ms in matches),
        cameras=tuple(CameraRun(*key, value, took("frame", 5.0), 120.0) for key, value in fps.items()),
        vitals=vitals or Vitals(),
    )


FAST = measured({("hog", 80): 20, ("cnn", 80): 60, ("yunet", 80): 15}, {(d, 1): 60.0 for d in ("hog", "cnn", "yunet")})


@pytest.mark.parametrize(("gone", "expected"), [((), "yunet"), (("yunet",), "cnn"), (("yunet", "cnn"), "hog")])
def test_the_detector_that_sees_most_and_is_in_time(gone: tuple[str, ...], expected: str) -> None:
    searches = tuple(cost for cost in FAST.searches if cost.detector not in gone)
    advice = advise(dataclasses.replace(FAST, searches=searches), Wishes())
    assert advice.settings["engine.detector"] == expected
    assert advice.settings["camera.fps"] == "10"
    assert advice.expected_ms <= 300


def test_a_detector_that_costs_the_frame_rate_gives_way() -> None:
    """cnn alone would hold the latency, but with fewer frames than the user asked for."""
    found = measured({("hog", 80): 20, ("cnn", 80): 60}, {("hog", 1): 60.0, ("cnn", 1): 8.0})
    assert advise(found, Wishes(latency_ms=1000)).settings["engine.detector"] == "hog"


def test_a_slow_board_is_given_larger_faces_and_says_what_that_means() -> None:
    found = measured({("hog", 80): 400, ("hog", 160): 80}, {("hog", 1): 30.0})
    advice = advise(found, Wishes())
    assert advice.settings["engine.min_face"] == "160"
    assert any("nearer" in word for word in advice.words)


def test_faces_smaller_than_the_user_wants_are_never_advised() -> None:
    found = measured({("hog", 120): 20, ("hog", 240): 5}, {("hog", 1): 60.0})
    assert advise(found, Wishes(min_face=120)).settings["engine.min_face"] == "120"


def test_a_board_that_is_too_slow_is_told_so_with_what_it_can() -> None:
    found = measured({("hog", 80): 900, ("hog", 240): 400}, {("hog", 1): 2.0})
    advice = advise(found, Wishes())
    assert not advice.holds
    assert advice.settings == {}
    assert advice.fragment() == ""
    assert advice.expected_ms > 300
    assert "No setting" in advice.words[0]
    assert "min_face = 240" in advice.words[1]


def test_without_a_camera_run_nothing_is_claimed() -> None:
    advice = advise(measured({("hog", 80): 20}, {}), Wishes())
    assert not advice.holds
    assert "No camera's process" in advice.words[0]


def test_more_frames_that_must_agree_take_more_time() -> None:
    few, many = (advise(FAST, Wishes(frames=frames, latency_ms=2000)).expected_ms for frames in (1, 4))
    assert many - few == pytest.approx(300)


def test_cameras_are_limited_by_what_two_managed_together() -> None:
    found = measured({("hog", 80): 20}, {("hog", 1): 40.0, ("hog", 2): 60.0}, threads={1: 30})
    assert advise(found, Wishes()).cameras == 4  # 70 % of 60 frames, 10 each
    two = advise(dataclasses.replace(found, cameras=found.cameras[:1]), Wishes(cameras=9))
    assert two.cameras < 9
    assert any("9 cameras" in word for word in two.words)


def test_another_thread_must_be_worth_it() -> None:
    few = measured({("hog", 80): 20}, {("hog", 1): 60.0}, threads={1: 50, 2: 48, 4: 47})
    assert advise(few, Wishes()).settings["engine.threads"] == "1"
    many = measured({("hog", 80): 20}, {("hog", 1): 60.0}, threads={1: 50, 2: 28, 4: 27})
    assert advise(many, Wishes()).settings["engine.threads"] == "2"


def test_people_end_where_matching_takes_too_long() -> None:
    assert advise(FAST, Wishes()).people == 100_000
    assert advise(FAST, Wishes()).people_at_least
    slow = dataclasses.replace(FAST, matches=(MatchCost(1000, took("", 1)), MatchCost(10_000, took("", 20))))
    advice = advise(slow, Wishes())
    assert (advice.people, advice.people_at_least) == (1000, False)


def test_people_are_not_spoken_of_where_matching_was_not_measured() -> None:
    assert "enrolled" not in " ".join(advise(dataclasses.replace(FAST, matches=()), Wishes()).words)


def test_a_detector_without_a_run_is_reckoned_from_another() -> None:
    found = measured({("hog", 80): 20, ("cnn", 80): 110}, {("hog", 1): 40.0})
    assert (
        advise(found, Wishes(latency_ms=1000)).settings["engine.detector"] == "hog"
    )  # cnn: 10 frames, 7 to be relied on


def test_what_disturbed_the_run_is_said() -> None:
    vitals = Vitals(
        (Sample(0, 85.0, 5.0, 100), Sample(1, 84.0, 7.0, 120)), ("its supply voltage is too low",), True, 0.5
    )
    words = " ".join(advise(dataclasses.replace(FAST, vitals=vitals), Wishes()).words)
    assert "voltage" in words
    assert "85 °C" in words
    assert "50%" in words
    assert (vitals.watts, vitals.memory_mib) == (6.0, 120)


def put(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text + "\n")


def test_watts_of_a_jetson(tmp_path: Path) -> None:
    put(tmp_path, "sys/class/hwmon/hwmon3/name", "ina3221")
    put(tmp_path, "sys/class/hwmon/hwmon3/in1_input", "5040")
    put(tmp_path, "sys/class/hwmon/hwmon3/curr1_input", "1200")
    assert Power(tmp_path).watts(0) == pytest.approx(6.048)


def test_watts_of_an_older_jetson(tmp_path: Path) -> None:
    put(tmp_path, "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power0_input", "3150")
    assert Power(tmp_path).watts(0) == pytest.approx(3.15)


def test_watts_of_a_processor_that_counts_energy_also_when_it_begins_anew(tmp_path: Path) -> None:
    zone = "sys/class/powercap/intel-rapl:0"
    put(tmp_path, f"{zone}/name", "package-0")
    put(tmp_path, f"{zone}/max_energy_range_uj", "100000000")
    put(tmp_path, f"{zone}/energy_uj", "95000000")
    put(tmp_path, "sys/class/powercap/intel-rapl:0:0/name", "core")  # a part of the package
    put(tmp_path, "sys/class/powercap/intel-rapl:0:0/energy_uj", "1")
    power = Power(tmp_path)
    assert power.watts(10.0) is None
    put(tmp_path, f"{zone}/energy_uj", "5000000")
    assert power.watts(12.0) == pytest.approx(5.0)


def test_a_board_that_tells_nothing(tmp_path: Path) -> None:
    throttling = Throttling(tmp_path)
    throttling.look()
    assert Power(tmp_path).watts(0) is None
    assert not throttling.known
    assert not throttling.found
    assert name_of(tmp_path) == "unknown board"


def test_a_pi_is_throttled_during_the_run(tmp_path: Path) -> None:
    told = "sys/devices/platform/soc/soc:firmware/get_throttled"
    put(tmp_path, told, "50000")  # too low a voltage and throttled, but long ago
    throttling = Throttling(tmp_path)
    throttling.look()
    assert throttling.known
    assert not throttling.found
    put(tmp_path, told, "50001")
    throttling.look()
    put(tmp_path, told, "d0000")  # it was near its limit between two looks
    throttling.look()
    assert list(throttling.found) == ["its supply voltage is too low", "it is near its temperature limit"]


def test_a_processor_counts_that_it_was_throttled(tmp_path: Path) -> None:
    counter = "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    put(tmp_path, counter, "7")
    throttling = Throttling(tmp_path)
    throttling.look()
    assert not throttling.found
    put(tmp_path, counter, "8")
    throttling.look()
    assert throttling.found


def test_a_clip_without_a_face_is_refused(tmp_path: Path, loaded_models: Models) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "wall.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (320, 240))
    for _ in range(5):
        writer.write(np.full((240, 320, 3), 128, np.uint8))
    writer.release()
    with pytest.raises(BenchError, match="no face of 80 pixels or more was found in 5 frames"):
        scene.take(str(tmp_path / "wall.avi"), settings.Config(), loaded_models, tmp_path, 5)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]


def test_the_page_needs_nothing_else_and_lets_nothing_in() -> None:
    found = dataclasses.replace(FAST, source="<script>alert(1)</script>", vitals=Vitals((Sample(0, 50.0, 5.0, 100),)))
    text = html.page(found, advise(found, Wishes()))
    page = _Page()
    page.feed(text)
    assert page.tags.count("svg") == 4
    assert "script" not in page.tags
    assert page.links == []
    assert "http" not in text.partition("</style>")[2]
    assert "detector = yunet" in text
    assert "prefers-color-scheme:dark" in text


def test_the_table_says_what_the_board_does_not_tell() -> None:
    text = "\n".join(table.lines(FAST, advise(FAST, Wishes())))
    assert text.count("this board does not tell") == 2
    assert "[engine]\ndetector = yunet\n" in text


def test_timed_runs_at_least_a_few_times_and_does_not_count_the_first() -> None:
    runs: list[int] = []
    assert timed("x", runs.append, 0.0).runs == 3
    assert runs == [0, 0, 1, 2]


ADVICE = Advice(
    {"engine.detector": "hog", "engine.min_face": "100", "engine.threads": "3", "camera.fps": "8"},
    *(300.0, 200.0, 1, 1000, False, ()),
)
FILE = """# mine
[camera:front]
source = /dev/video0
fps = 15
[camera:back]
source = rtsp://user:secret@host/x  ; not a comment

[engine]
# how faces are found
detector: cnn
[mqtt]
password = secret"""


def test_apply_changes_the_values_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "config.ini"
    file.write_text(FILE)
    file.chmod(0o640)
    kept = apply.apply(ADVICE, file)
    assert kept.read_text() == FILE
    for path in (file, kept):
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    read = config.load(file)
    assert {camera.fps for camera in read.cameras.values()} == {8}
    assert (read.engine.detector, read.engine.min_face, read.engine.threads) == ("hog", 100, 3)
    assert read.mqtt.password == "secret"
    lost = [line for line in FILE.splitlines() if line not in file.read_text().splitlines()]
    assert lost == ["fps = 15", "detector: cnn"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([file.name, kept.name])
    assert apply.apply(ADVICE, file) != kept
    assert kept.read_text() == FILE


def test_apply_keeps_the_ends_of_lines() -> None:
    assert (
        apply.changed("[engine]\r\ndetector = cnn\r\n", {"engine.detector": "hog"}) == "[engine]\r\ndetector = hog\r\n"
    )


def test_apply_adds_what_is_not_there() -> None:
    added = "detector = hog\nmin_face = 100\nthreads = 3\n"
    assert apply.changed("[engine]\n# mine\n", ADVICE.settings) == f"[engine]\n{added}# mine\n\n[camera]\nfps = 8\n"


def test_apply_goes_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.ini").write_text("[engine]\n")
    (tmp_path / "config.ini").symlink_to("real.ini")
    apply.apply(ADVICE, tmp_path / "config.ini")
    assert (tmp_path / "config.ini").is_symlink()
    assert "detector = hog" in (tmp_path / "real.ini").read_text()


def test_apply_refuses_what_would_do_nothing_or_break_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config.ini"
    file.write_text("[engine]\nmax_face = 90\n")
    with pytest.raises(BenchError, match="max_face"):
        apply.apply(ADVICE, file)
    file.write_text("[engine]\n")
    monkeypatch.setenv("EDGE_FACE__ENGINE__DETECTOR", "cnn")
    with pytest.raises(EdgeFaceError, match="environment"):
        apply.apply(ADVICE, file)
    assert file.read_text() == "[engine]\n"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("vitals", "held", "file", "expected"),
    [
        (Vitals(), True, "config.ini", ""),
        (Vitals(), True, "", "there is no config.ini"),
        (Vitals(), False, "config.ini", "nothing holds 300 ms"),
        (Vitals(throttled=("it is throttled",)), True, "config.ini", "it is throttled"),
        (Vitals(others=0.5), True, "config.ini", "50%"),
    ],
)
def test_apply_refuses_figures_that_are_not_the_boards(vitals: Vitals, held: bool, file: str, expected: str) -> None:
    advice = ADVICE if held else dataclasses.replace(ADVICE, cameras=0)
    refused = apply.refusal(dataclasses.replace(FAST, vitals=vitals), advice, file)
    assert expected in refused
    assert bool(refused) == bool(expected)
