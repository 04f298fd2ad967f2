"""The configuration: every key, every mistake, and that `config.ini` says what the code does."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_face import config, settings
from edge_face.errors import ConfigError
from edge_face.queries import headers_of

ROOT = Path(__file__).parents[2]


def load(tmp_path: Path, text: str, **environ: str) -> settings.Config:
    file = tmp_path / "config.ini"
    file.write_text(text, encoding="utf-8")
    return config.load(file, environ)


def problems(tmp_path: Path, text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, **environ)
    return list(caught.value.problems)


def test_the_file_in_the_repository_is_what_the_code_declares() -> None:
    assert (ROOT / "config.ini").read_text(encoding="utf-8") == config.defaults_text()


def test_every_key_of_the_file_has_a_comment_above_it() -> None:
    lines = config.defaults_text().splitlines()
    keys = [number for number, line in enumerate(lines) if " =" in line and not line.startswith("#")]
    assert len(keys) == sum(len(settings.limits_of(section)) for section in settings.SECTIONS.values())
    assert all(lines[number - 1].startswith("# ") for number in keys)


def test_an_empty_file_and_the_commented_file_both_give_the_defaults(tmp_path: Path) -> None:
    empty = load(tmp_path, "")
    assert load(tmp_path, config.defaults_text()) == empty
    assert empty.cameras == {"front": settings.Camera()}
    assert empty.webhooks == {}
    assert empty.storage.path == str(tmp_path / "edge-face.db")


def test_defaults_of_the_contract(tmp_path: Path) -> None:
    c = load(tmp_path, "")
    assert (c.cameras["front"].scale, c.cameras["front"].buffer_size, c.engine.min_face) == (None, 1, 80)
    d = c.decision
    assert (d.threshold, d.margin, d.frames, d.max_age, d.cooldown) == (0.45, 0.05, 2, 1.0, 5)
    assert (d.event_ttl, d.presence_timeout) == (5, 5)
    assert (c.api.host, c.api.port) == ("127.0.0.1", 5000)


def test_all_mistakes_are_told_together_with_the_nearest_name(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        "[camra]\nx = 1\n[camera]\nscal = 1\nfps = hundred\nscale = 9\nFPS = 3\n[mqtt]\npasswort = x\nversion = 4\n"
        "[decision]\nthreshold = nan\nframes = 2.5\n[api]\nport = 99999\n",
    )
    assert "[camra]: no such section; did you mean camera?" in found
    assert "[camera] scal: no such key; did you mean scale?" in found
    assert "[camera] FPS: no such key; did you mean fps?" in found
    assert "[camera] fps: expected a number, not 'hundred'" in found
    assert "[camera] scale: expected 0.05 to 4, not 9" in found
    assert "[mqtt] passwort: no such key; did you mean password?" in found
    assert "[mqtt] version: expected 5 or 3.1.1, not '4'" in found
    assert "[decision] threshold: expected 0.05 to 1, not nan" in found
    assert "[decision] frames: expected a whole number, not '2.5'" in found
    assert "[api] port: expected 0 to 65535, not 99999" in found
    assert len(found) == 10


@pytest.mark.parametrize("text", ["no section", "[camera\n", "[camera]\nfps = 1\nfps = 2\n", "[camera]\n[camera]\n"])
def test_a_file_that_is_no_ini_is_one_problem_in_one_line(tmp_path: Path, text: str) -> None:
    (found,) = problems(tmp_path, text)
    assert str(tmp_path) in found
    assert "\n" not in found


def test_a_missing_file_that_was_asked_for_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path / "none.ini", {})


def test_cameras_inherit_from_the_plain_section(tmp_path: Path) -> None:
    c = load(tmp_path, "[camera]\nfps = 7\n[camera:back]\nsource = 1\n[camera:Front Door]\nfps = 3\nsource = 0\n")
    assert list(c.cameras) == ["back", "Front Door"]
    assert (c.cameras["back"].fps, c.cameras["Front Door"].fps) == (7, 3)


def test_the_plain_camera_alone_is_front(tmp_path: Path) -> None:
    assert list(load(tmp_path, "[camera]\nsource = demo\n").cameras) == ["front"]


def test_a_mistake_in_the_shared_section_is_told_once(tmp_path: Path) -> None:
    found = problems(tmp_path, "[camera]\nfps = x\n[camera:a]\n[camera:b]\n")
    assert found == ["[camera] fps: expected a number, not 'x'"]


def test_only_some_sections_may_be_repeated(tmp_path: Path) -> None:
    assert problems(tmp_path, "[mqtt:a]\n") == ["[mqtt:a]: only camera and webhook can stand several times"]


def test_webhooks(tmp_path: Path) -> None:
    c = load(
        tmp_path, "[webhook]\nsecret = s\n[webhook:a]\nurl = http://x/\nevents = PASS, REJECT\n[webhook:b]\nurl=\n"
    )
    assert list(c.webhooks) == ["a"]
    assert c.webhooks["a"].secret == "s"
    assert c.webhooks["a"].events == ("PASS", "REJECT")
    assert problems(tmp_path, "[webhook]\nurl = ftp://x\n") == [
        "[webhook] url: expected an http:// or https:// address"
    ]


def test_a_webhook_of_some_cameras(tmp_path: Path) -> None:
    text = "[camera:gate]\n[camera:door]\n[webhook]\nurl = http://x/\ncameras = gate, door\n"
    assert load(tmp_path, text).webhooks["default"].cameras == ("gate", "door")
    assert problems(tmp_path, text.replace("gate, door", "gates")) == [
        "[webhook] cameras: no such camera: gates; did you mean gate?"
    ]


def test_a_secret_that_is_no_base64_is_told_with_the_rest_and_not_shown(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, "[webhook:a]\nurl = http://x/\nsecret = whsec_hunter2!\n")
    assert found == "[webhook:a] secret: what follows whsec_ is not base64"


def test_headers_are_lines_and_are_not_shown(tmp_path: Path) -> None:
    text = "[webhook]\nurl = http://x/\nheaders =\n    X-Gate: north\n    X-Key: hunter2:3\n"
    hook = load(tmp_path, text).webhooks["default"]
    assert headers_of(hook.headers) == {"X-Gate": "north", "X-Key": "hunter2:3"}
    assert "hunter2" not in config.effective_text(load(tmp_path, text))


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("hunter2", "expected lines of Name: value"),
        ("X Key: hunter2", "expected lines of Name: value"),
        ("X-Key:", "expected lines of Name: value"),
        ("Host: hunter2", "Host is made by edge-face itself"),
        ("Webhook-Id: hunter2", "Webhook-Id is made by edge-face itself"),
    ],
)
def test_headers_that_cannot_be_are_told(tmp_path: Path, lines: str, reason: str) -> None:
    assert problems(tmp_path, f"[webhook]\nurl = http://x/\nheaders = {lines}\n") == [f"[webhook] headers: {reason}"]


def test_addresses_that_are_none_are_told(tmp_path: Path) -> None:
    assert problems(tmp_path, "[remote]\nmatch_url = localhost:5000/match\n[webhook]\nurl = http://x:y/\n") == [
        "[remote] match_url: expected an http:// or https:// address",
        "[webhook] url: expected an http:// or https:// address",
    ]
    c = load(tmp_path, "[remote]\nmatch_url = http://any:hush@server:5000/match\n")
    assert "hush" not in config.effective_text(c)


def test_the_demo_stands_alone(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, "[camera:a]\nsource = demo\n[camera:b]\nsource = 0\n")
    assert "demo" in found


def test_the_environment_overrides(tmp_path: Path) -> None:
    c = load(tmp_path, "[mqtt]\npassword = a\n", EDGE_FACE__MQTT__PASSWORD="b%c", EDGE_FACE__CAMERA__BUFFER_SIZE="2")
    assert c.mqtt.password == "b%c"
    assert c.cameras["front"].buffer_size == 2
    assert problems(tmp_path, "", EDGE_FACE__MQTT__PORRT="1") == ["[mqtt] porrt: no such key; did you mean port?"]
    assert "expected EDGE_FACE__<SECTION>__<KEY>" in problems(tmp_path, "", EDGE_FACE__MQTT="1")[0]


def test_secrets_are_never_shown(tmp_path: Path) -> None:
    text = config.effective_text(
        load(
            tmp_path,
            "[mqtt]\npassword = hunter2\n[webhook]\nurl = http://u:hunter3@h/\nsecret = hunter4\n"
            "[camera]\nsource = rtsp://admin:hunter5@cam/1\n",
        )
    )
    assert "hunter" not in text
    assert "rtsp://admin:********@cam/1" in text


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://katya:p#s/s?@cam/1", "rtsp://katya:********@cam/1"),
        ("http://cam/video?user=a&pwd=hunter2&x=1", "http://cam/video?user=a&pwd=********&x=1"),
        ("rtsp://[bad", "rtsp://[bad"),
        ("/dev/video0", "/dev/video0"),
        ("https://host/a", "https://host/a"),
        ("exec:ffmpeg -i rtsp://katya:hunter2@cam/1 -f mjpeg -", "exec:ffmpeg -i rtsp://********@cam/1 -f mjpeg -"),
        (
            "exec:PIN_TOKEN='hun ter' grab --password hunter2 -s 5",
            "exec:PIN_TOKEN=******** grab --password ******** -s 5",
        ),
    ],
)
def test_addresses_are_shown_without_their_secrets(address: str, shown: str) -> None:
    assert config.mask_url(address) == shown


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "gate.local"])
def test_a_host_that_others_reach_needs_tls_or_insecure(tmp_path: Path, host: str) -> None:
    assert "other machines can reach" in problems(tmp_path, f"[api]\nhost = {host}\n")[0]
    assert load(tmp_path, f"[api]\nhost = {host}\ninsecure = true\n").api.insecure


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.0.0.53"])
def test_a_loopback_host_needs_neither(tmp_path: Path, host: str) -> None:
    assert load(tmp_path, f"[api]\nhost = {host}\n").api.host == host


def test_what_belongs_together(tmp_path: Path) -> None:
    found = problems(tmp_path, "[api]\ncert = a.pem\n[mqtt]\nkey = b.pem\n[engine]\nmin_face = 90\nmax_face = 80\n")
    assert [problem.split(":")[0] for problem in found] == ["[api] cert", "[mqtt] cert", "[engine] max_face"]


@pytest.mark.parametrize("prefix", ["", "home/", "/home", "home//a", "home/+", "#"])
def test_a_prefix_that_is_no_topic_is_told(tmp_path: Path, prefix: str) -> None:
    assert problems(tmp_path, f"[homeassistant]\nprefix = {prefix}\n") == [
        "[homeassistant] prefix: expected a topic, such as homeassistant"
    ]
    assert load(tmp_path, "[homeassistant]\nprefix = home/found\n").homeassistant.prefix == "home/found"


def test_paths_start_at_the_files_folder(tmp_path: Path) -> None:
    (tmp_path / "door.mp4").touch()
    c = load(tmp_path, "[storage]\npath = a/b.db\n[attendance]\ncsv = /var/c.csv\n[camera]\nsource = door.mp4\n")
    assert c.cameras["front"].source == str(tmp_path / "door.mp4")
    assert c.storage.path == str(tmp_path / "a/b.db")
    assert c.attendance.csv == "/var/c.csv"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("size = 640", "[camera] size: expected WIDTHxHEIGHT, 1280x720 say, or auto"),
        ("size = 4x4", "[camera] size: expected 16x16 to 16384x16384"),
        ("format = raw", "[camera] format: expected auto or mjpeg"),
        ("source = exec:grab\nformat = bgr24", "[camera] size: raw pictures do not say it"),
    ],
)
def test_what_a_camera_cannot_be_asked_for_is_told(tmp_path: Path, lines: str, said: str) -> None:
    (found,) = problems(tmp_path, f"[camera]\n{lines}\n")
    assert found.startswith(said)


def test_the_size_of_a_camera(tmp_path: Path) -> None:
    text = "[camera]\nsize = 1280X720\n[camera:a]\n[camera:b]\nsize = Auto\n"
    assert [camera.wanted_size for camera in load(tmp_path, text).cameras.values()] == [(1280, 720), None]


def test_systemd_hands_over_secrets_as_files(tmp_path: Path) -> None:
    """Of single files and of a whole folder; the environment still has the last word."""
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "mqtt.password").write_text("geheim\n")
    (folder / "config_webhook.gate.secret").write_text("whsec_c2VjcmV0\n")
    (folder / "config_webhook.gate.url").write_text("http://gate/")
    (folder / "other").write_text("not ours")
    file = tmp_path / "config.ini"
    file.write_text("[mqtt]\npassword = in the file\n")
    environ = {"CREDENTIALS_DIRECTORY": str(folder)}
    found = config.load(file, environ)
    assert found.mqtt.password == "geheim"
    assert found.webhooks["gate"].secret == "whsec_c2VjcmV0"
    assert config.load(file, environ | {"EDGE_FACE__MQTT__PASSWORD": "last"}).mqtt.password == "last"
    (folder / "mqtt.pasword").write_text("x")
    with pytest.raises(ConfigError, match=r"\[mqtt\] pasword: no such key; did you mean password"):
        config.load(file, environ)
