"""Reads `config.ini` and the environment into a `Config`, and reports every problem together."""

from __future__ import annotations

import configparser
import dataclasses
import difflib
import ipaddress
import os
import re
import socket
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_type_hints
from urllib.parse import urlsplit

from edge_face.errors import ConfigError
from edge_face.queries import headers_of, zone_of
from edge_face.settings import REPEATABLE, SECRET, SECTIONS, YUNET_FILE, Camera, Config, Limits, Webhook, limits_of
from edge_face.signatures import signing_key
from edge_face.vault import parse_key

ENV_PREFIX = "EDGE_FACE__"
SEARCH_PATH = (Path("config.ini"), Path("/etc/edge-face/config.ini"))

_USER_INFO = re.compile(r"^(\w[\w+.-]*://[^:/@?#]*):.*@")
_TELLING = r"(?:pass|pwd|token|key|secret|auth|sig)"
_QUERY_SECRET = re.compile(rf"([?&]{_TELLING}\w*=)[^&#]*", re.IGNORECASE)
_WORD_USER_INFO = re.compile(r"(://)[^\s'\"]*@")
_WORD_OPTION = re.compile(
    rf"((?<![\w-])(?:--?[\w-]*{_TELLING}[\w-]*[=:\s]|[\w-]*{_TELLING}[\w-]*[=:])\s*)"
    r"(?:'[^']*'|\"[^\"]*\"|[^\s'\"&]+)",
    re.IGNORECASE,
)

Values = dict[str, dict[str, str]]
"""Section, as written (`camera`, `camera:back`), to key to text."""


def find(explicit: Path | None = None) -> Path | None:
    """The file to read: the one asked for, else the first of SEARCH_PATH that exists."""
    return explicit or next((path for path in SEARCH_PATH if path.is_file()), None)


def load(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """Read the configuration. Raises ConfigError with all problems at once."""
    problems: list[str] = []
    file = find(path)
    values = _read_file(file, problems) if file else {}
    _overlay_credentials(values, os.environ if environ is None else environ, problems)
    _overlay_environment(values, os.environ if environ is None else environ, problems)
    config = _build(values, problems)
    if problems:
        raise ConfigError(problems)
    return _resolve(config, file)


def _read_file(path: Path, problems: list[str]) -> Values:
    parser = configparser.ConfigParser(interpolation=None, default_section="\0", inline_comment_prefixes=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # keys are told apart by case, to suggest the right one
    try:
        with path.open(encoding="utf-8") as file:
            parser.read_file(file)
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{path}: cannot be read: {error}")
        return {}
    except configparser.Error as error:
        problems.append(f"{path}: {' '.join(str(error).split())}")
        return {}
    return {name: dict(parser.items(name)) for name in parser.sections()}


def _overlay_credentials(values: Values, environ: Mapping[str, str], problems: list[str]) -> None:
    """Files that systemd hands to a service (LoadCredential=), named as `mqtt.password` or `webhook.gate.secret`.

    Of a whole folder, systemd puts `config_` before each name. A name without a dot is none of these.
    """
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return
    try:
        files = sorted(path for path in Path(folder).iterdir() if "." in path.name)
        for file in files:
            section, key = file.name.removeprefix("config_").rsplit(".", 1)
            values.setdefault(section.replace(".", ":", 1), {})[key] = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{folder}: cannot be read: {error}")


def _overlay_environment(values: Values, environ: Mapping[str, str], problems: list[str]) -> None:
    """EDGE_FACE__<SECTION>__<KEY>, e.g. EDGE_FACE__MQTT__PASSWORD, or EDGE_FACE__CAMERA:BACK__FPS for one camera."""
    for variable, text in sorted(environ.items()):
        if not variable.startswith(ENV_PREFIX):
            continue
        section, separator, key = variable.removeprefix(ENV_PREFIX).lower().partition("__")
        if not separator or not key:
            problems.append(f"{variable}: expected {ENV_PREFIX}<SECTION>__<KEY>")
            continue
        values.setdefault(section, {})[key] = text


def _build(values: Values, problems: list[str]) -> Config:
    for section in values:
        if section.partition(":")[0] not in SECTIONS:
            problems.append(f"[{section}]: no such section{_near(section, SECTIONS)}")
        elif ":" in section and section.partition(":")[0] not in REPEATABLE:
            problems.append(f"[{section}]: only {' and '.join(REPEATABLE)} can stand several times")
        elif section.endswith(":"):
            problems.append(f"[{section}]: the part after the colon, the id, is missing")
    parsed: dict[str, Any] = {
        name: _repeated(name, kind, values, problems)
        if name in REPEATABLE
        else _section(name, kind, values.get(name, {}), problems)
        for name, kind in SECTIONS.items()
    }
    cameras: dict[str, Camera] = parsed.pop("camera")
    webhooks: dict[str, Webhook] = parsed.pop("webhook")
    config = Config(**parsed, cameras=cameras, webhooks={id: hook for id, hook in webhooks.items() if hook.url})
    problems.extend(_cross_checks(config))
    return config


def _repeated(name: str, kind: type[Any], values: Values, problems: list[str]) -> dict[str, Any]:
    shared = values.get(name, {})
    own = {section.partition(":")[2]: keys for section, keys in values.items() if section.startswith(f"{name}:")}
    if not own:
        return {REPEATABLE[name]: _section(name, kind, shared, problems)}
    _section(name, kind, shared, problems)  # so that a mistake there is told once, under its own heading
    inherited = {key: text for key, text in shared.items() if key in limits_of(kind)}
    return {id: _section(f"{name}:{id}", kind, keys, problems, inherited) for id, keys in own.items() if id}


def _section(
    name: str,
    kind: type[Any],
    texts: Mapping[str, str],
    problems: list[str],
    inherited: Mapping[str, str] | None = None,
) -> Any:
    known = limits_of(kind)
    types = get_type_hints(kind)
    parsed: dict[str, Any] = {}
    problems += [f"[{name}] {key}: no such key{_near(key, known)}" for key in texts if key not in known]
    for key, (_field, limits) in known.items():
        own = key in texts
        if not own and key not in (inherited or {}):
            continue
        text = texts[key] if own else (inherited or {})[key]
        try:
            parsed[key] = _parse(text.strip(), types[key], limits)
        except ValueError as error:
            if own:
                problems.append(f"[{name}] {key}: {error}")
    return kind(**parsed)


def _parse(text: str, kind: Any, limits: Limits) -> Any:
    """Text to value. Raises ValueError with the reason; a secret's text never appears in it."""
    if limits.word and text.lower() == limits.word:
        return None
    if kind is bool:
        try:
            return configparser.ConfigParser.BOOLEAN_STATES[text.lower()]
        except KeyError:
            raise ValueError(f"expected true or false, not {text!r}") from None
    if kind is int or kind is float or limits.word:
        return _number(text, kind is int, limits)
    if kind is str:
        if limits.choices and text.lower() not in limits.choices:
            raise ValueError(f"expected {' or '.join(limits.choices)}, not {text!r}{_near(text, limits.choices)}")
        return text.lower() if limits.choices else text
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    for word in words:
        if limits.choices and word not in limits.choices:
            raise ValueError(f"expected {' or '.join(limits.choices)}, not {word!r}{_near(word, limits.choices)}")
    return words


def _number(text: str, whole: bool, limits: Limits) -> int | float:
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        wanted = "a whole number" if whole else "a number"
        raise ValueError(f"expected {wanted}{f' or {limits.word}' if limits.word else ''}, not {text!r}") from None
    if not (limits.low is None or value >= limits.low) or not (limits.high is None or value <= limits.high):
        raise ValueError(f"expected {limits.low:g} to {limits.high:g}, not {text}")
    return value


def _near(word: str, known: Mapping[str, Any] | tuple[str, ...]) -> str:
    close = difflib.get_close_matches(word.lower(), [str(name) for name in known], n=1, cutoff=0.5)
    match = next((name for name in known if name.lower() == close[0].lower()), close[0]) if close else ""
    return f"; did you mean {match}?" if match else ""


def _cross_checks(config: Config) -> Iterator[str]:
    if bool(config.api.cert) != bool(config.api.key):
        yield "[api] cert: cert and key belong together"
    if not config.api.cert and not config.api.insecure and not is_loopback(config.api.host):
        yield "[api] host: other machines can reach this address without TLS; set cert and key, or insecure = true"
    if bool(config.mqtt.cert) != bool(config.mqtt.key):
        yield "[mqtt] cert: cert and key belong together"
    if not re.fullmatch(r"[^/+#\x00]+(/[^/+#\x00]+)*", config.homeassistant.prefix):
        yield "[homeassistant] prefix: expected a topic, such as homeassistant"
    if config.engine.max_face and config.engine.max_face < config.engine.min_face:
        yield "[engine] max_face: smaller than min_face"
    for key, text in (
        ("template_key", config.storage.template_key),
        ("old_template_key", config.storage.old_template_key),
    ):
        try:
            parse_key(text)
        except ValueError as error:
            yield f"[storage] {key}: {error}"
    sources = [camera.source for camera in config.cameras.values()]
    if "demo" in sources and len(sources) > 1:
        yield "[camera] source: the demo stands alone, without other cameras"
    for id, camera in config.cameras.items():
        if not camera.source:
            yield f"{heading('camera', id)} source: empty"
        try:
            size = camera.wanted_size
        except ValueError as error:
            yield f"{heading('camera', id)} size: {error}"
            continue
        if camera.source.startswith("exec:") and camera.format not in ("auto", "mjpeg") and not size:
            yield f"{heading('camera', id)} size: raw pictures do not say it, so it has to be set"
    if config.remote.match_url and not _is_http(config.remote.match_url):
        yield "[remote] match_url: expected an http:// or https:// address"
    try:
        zone_of(config.attendance.timezone)
    except ValueError as error:
        yield f"[attendance] timezone: {error}"
    for id, hook in config.webhooks.items():
        for name in hook.cameras:
            if name not in config.cameras:
                yield f"{heading('webhook', id)} cameras: no such camera: {name}{_near(name, config.cameras)}"
        if not _is_http(hook.url):
            yield f"{heading('webhook', id)} url: expected an http:// or https:// address"
        for key, text, read in (
            ("secret", hook.secret, signing_key),
            ("old_secret", hook.old_secret, signing_key),
            ("headers", hook.headers, headers_of),
        ):
            try:
                read(text)
            except ValueError as error:
                yield f"{heading('webhook', id)} {key}: {error}"


def heading(name: str, id: str) -> str:
    """Where the user has to look: the plain section has an id, too, but not in the file."""
    return f"[{name}]" if id == REPEATABLE[name] else f"[{name}:{id}]"


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for one that is no number
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _resolve(config: Config, file: Path | None) -> Config:
    """Fill in what depends on the machine: the node's name, and paths relative to the file's folder."""
    base = file.parent.resolve() if file else Path.cwd()

    def absolute(text: str) -> str:
        return str(base / Path(text).expanduser()) if text else ""

    yunet_beside = base / "models" / YUNET_FILE
    yunet_model = config.engine.yunet_model or (str(yunet_beside) if yunet_beside.is_file() else "")
    return dataclasses.replace(
        config,
        file=str(file.resolve()) if file else "",
        node=dataclasses.replace(config.node, id=config.node.id or socket.gethostname()),
        engine=dataclasses.replace(config.engine, yunet_model=absolute(yunet_model)),
        storage=dataclasses.replace(
            config.storage,
            path=absolute(config.storage.path),
            backups=absolute(config.storage.backups_folder) or "off",
        ),
        api=dataclasses.replace(config.api, cert=absolute(config.api.cert), key=absolute(config.api.key)),
        mqtt=dataclasses.replace(
            config.mqtt, ca=absolute(config.mqtt.ca), cert=absolute(config.mqtt.cert), key=absolute(config.mqtt.key)
        ),
        attendance=dataclasses.replace(config.attendance, csv=absolute(config.attendance.csv)),
        cameras={
            id: dataclasses.replace(
                camera, source=absolute(camera.source) if _is_path(camera.source, base) else camera.source
            )
            for id, camera in config.cameras.items()
        },
    )


def _is_path(source: str, base: Path) -> bool:
    """Whether a camera's source is a file or folder beside the configuration."""
    return "://" not in source and (base / source).exists()


def as_text(value: Any, limits: Limits) -> str:
    """A value as it stands in the file."""
    if value is None:
        return limits.word
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ", ".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def defaults_text() -> str:
    """The commented `config.ini` with every key at its default."""
    parts = [
        "# edge-face's configuration. Every key stands here with its default; an empty file runs just as well.",
        "# The environment overrides a key: EDGE_FACE__MQTT__PASSWORD=... sets password in [mqtt].",
        "# So does a systemd credential: /etc/edge-face/credentials/mqtt.password holds password of [mqtt].",
        "# Several cameras: [camera:front], [camera:back]; [camera] then holds what they share. Webhooks likewise.",
    ]
    for name, kind in SECTIONS.items():
        parts.append(f"\n[{name}]")
        for key, (declared, limits) in limits_of(kind).items():
            parts.extend(f"# {line}" for line in textwrap.wrap(_help(limits), 116))
            parts.append(f"{key} = {as_text(declared.default, limits)}".rstrip())
    return "\n".join(parts) + "\n"


def _help(limits: Limits) -> str:
    if limits.choices:
        return f"{limits.help} ({', '.join(limits.choices)})"
    if limits.low is not None:
        return f"{limits.help} ({limits.low:g} to {limits.high:g})"
    return limits.help


def effective_text(config: Config) -> str:
    """What is in force, in the file's form, secrets masked."""
    sections: dict[str, Any] = {name: getattr(config, name) for name in SECTIONS if name not in REPEATABLE}
    sections |= {f"camera:{id}": camera for id, camera in config.cameras.items()}
    sections |= {f"webhook:{id}": hook for id, hook in config.webhooks.items()}
    lines = [f"# read from {config.file}" if config.file else "# no config.ini found: defaults"]
    for name, section in sections.items():
        lines.append(f"\n[{name}]")
        for key, (_declared, limits) in limits_of(type(section)).items():
            value = getattr(section, key)
            text = SECRET if limits.secret and value else mask_url(as_text(value, limits))
            lines.append(f"{key} = {text}".rstrip())
    return "\n".join(lines) + "\n"


def mask_url(text: str) -> str:
    """An address without the password in `user:password@` and without secrets in its query; other text unchanged.

    Not by a URL parser: a password that holds # or / is no valid URL, and must not show either.
    """
    if text.startswith("exec:"):
        return mask_command(text)
    return _QUERY_SECRET.sub(rf"\1{SECRET}", _USER_INFO.sub(rf"\1:{SECRET}@", text))


def mask_command(text: str) -> str:
    """A command, or a line that a program wrote, without the passwords that its addresses and options show."""
    text = _WORD_OPTION.sub(rf"\1{SECRET}", _WORD_USER_INFO.sub(rf"\1{SECRET}@", text))
    return _QUERY_SECRET.sub(rf"\1{SECRET}", text)
