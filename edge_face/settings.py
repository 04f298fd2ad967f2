"""Every option, declared once: type, default, bounds, help. `config.ini` and the docs are checked against this file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

YUNET_FILE = "face_detection_yunet_2023mar.onnx"

SECRET = "********"  # noqa: S105  # what is shown in place of a secret


@dataclass(frozen=True, slots=True)
class Limits:
    """What `config.py` needs to know of an option beyond its type and default."""

    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    secret: bool = False
    word: str = ""
    """A word that stands for a number: `auto` for None."""
    restart: bool = False
    """Whether a change takes effect at the next start only, and not at a reload."""


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    secret: bool = False,
    word: str = "",
    restart: bool = False,
) -> Any:
    limits = Limits(help, low, high, choices, secret, word, restart)
    return field(default=default, metadata={"limits": limits})


@dataclass(frozen=True, slots=True)
class Node:
    id: str = option("", "Name of this box in topics and events; empty: the host name.", restart=True)


@dataclass(frozen=True, slots=True)
class Camera:
    source: str = option(
        "auto",
        "auto (the first camera found), 0, /dev/video0, /dev/v4l/by-id/..., rtsp://..., http(s)://..., a video file, "
        "a folder of images, csi (Raspberry Pi, by rpicam-vid), jetson-csi (by gst-launch-1.0), exec:COMMAND (a shell "
        "command that writes pictures to its standard output), or demo.",
    )
    size: str = option(
        "auto",
        "Size to ask the camera for, 1280x720 say. auto: 640x480 of a V4L2 camera, 1280x720 of csi and jetson-csi. "
        "exec: the size of the raw pictures that the command writes; MJPEG says it itself.",
    )
    format: str = option(
        "auto",
        "Format to ask the camera for, or that the command of exec: writes. auto: MJPEG from exec: and from a V4L2 "
        "camera above 640x480, else what suits it. yuvj420p is yuv420p in full range.",
        choices=("auto", "mjpeg", "yuv420p", "yuvj420p", "bgr24"),
    )
    stride: int = option(
        0,
        "Bytes from one line of a raw picture to the next, where they are padded. 0: not padded by exec:, and as "
        "rpicam-vid does it by csi.",
        low=0,
        high=262144,
    )
    scale: float | None = option(
        None,
        "Faces are searched on a frame reduced by this factor and encoded from the full one. auto: the strongest "
        "reduction at which a face of min_face pixels is still found.",
        low=0.05,
        high=4,
        word="auto",
    )
    buffer_size: int = option(1, "Frames the camera driver may queue. 1 is the newest frame only.", low=1, high=64)
    frozen: float = option(
        4.0,
        "Seconds after which a camera whose picture does not change at all is lost; 0: never, for one whose encoder "
        "leaves nothing of the noise in a still scene.",
        low=0,
        high=3600,
    )
    fps: float = option(10.0, "Most frames judged in a second; 0: as many as the board can.", low=0, high=240)
    loop: bool = option(False, "A clip or a folder starts again at its end. Otherwise its end ends the daemon.")
    realtime: bool = option(
        True,
        "A clip plays at its own speed and frames that come too fast are dropped, as with a camera. no: every frame "
        "is judged, however long it takes.",
    )

    @property
    def wanted_size(self) -> tuple[int, int] | None:
        """Width and height; None for auto. Raises ValueError when `size` is neither."""
        if self.size.lower() == "auto":
            return None
        width, separator, height = self.size.lower().partition("x")
        if not (separator and width.isdecimal() and height.isdecimal()):
            raise ValueError("expected WIDTHxHEIGHT, 1280x720 say, or auto")
        if not (16 <= int(width) <= 16384 and 16 <= int(height) <= 16384):
            raise ValueError("expected 16x16 to 16384x16384")
        return int(width), int(height)


@dataclass(frozen=True, slots=True)
class Engine:
    backend: str = option(
        "auto",
        "Library that runs dlib's networks. auto: the first of these that works here, which is also the fastest.",
        choices=("auto", "onnxruntime", "opencv", "face_recognition"),
    )
    detector: str = option(
        "auto",
        "How faces are found. auto: yunet where its model file is, else hog. cnn sees turned faces that hog misses, at "
        "three times the cost.",
        choices=("auto", "cnn", "hog", "yunet"),
    )
    yunet_model: str = option(
        "",
        "YuNet's model file, which scripts/get-yunet fetches; a relative path starts at this file's folder. Empty: "
        f"models/{YUNET_FILE} there, if it exists.",
    )
    max_temperature: float = option(
        75.0,
        "Degrees Celsius of the processor from which on fewer frames are judged; most boards slow down at 80 to 85. "
        "0: never.",
        low=0,
        high=150,
    )
    threads: int = option(0, "Threads for image work in each camera's process; 0: half of the cores.", low=0, high=64)
    min_face: int = option(
        80, "Smallest face in pixels of the full frame; smaller ones are not seen.", low=20, high=4000
    )
    max_face: int = option(0, "Largest face in pixels of the full frame; 0: no limit.", low=0, high=10000)


@dataclass(frozen=True, slots=True)
class Decision:
    threshold: float = option(
        0.45, "Largest distance at which a face is somebody. Smaller is stricter.", low=0.05, high=1
    )
    margin: float = option(
        0.05, "The second person must be at least this much farther away, else the face is ambiguous.", low=0, high=1
    )
    frames: int = option(2, "Frames that must agree on a person, of the last frames + 1 of a track.", low=1, high=30)
    max_age: float = option(1.0, "Seconds from grab to decision; an older frame never opens.", low=0.05, high=60)
    cooldown: float = option(5.0, "Seconds between two PASS of one person.", low=0, high=86400)
    event_ttl: float = option(5.0, "Seconds after the grab until an event expires.", low=0.1, high=3600)
    presence_timeout: float = option(
        5.0, "Seconds without a face that end a visit and clear presence.", low=0.1, high=3600
    )


@dataclass(frozen=True, slots=True)
class Storage:
    path: str = option("edge-face.db", "The database file; a relative path starts at this file's folder.", restart=True)
    keep_faces: bool = option(
        False,
        "Keep a small picture of each face that is enrolled. Otherwise only 128 numbers of it are kept, and pictures "
        "that are there are erased at the next start.",
        restart=True,
    )
    keep_unknowns: bool = option(
        False,
        "Keep visitors whom nobody knows, to be enrolled or ignored later: when and where each came, a small picture "
        "and numbers of the face. Otherwise nothing of them is kept, and what is there is erased at the next start.",
        restart=True,
    )
    unknowns_days: float = option(
        30.0, "Days for which an unknown visitor is kept after the last visit; 1,000 at most.", low=1, high=3650
    )
    retention: float = option(90.0, "Days for which events are kept; 0: for ever.", low=0, high=36500)
    backups: str = option(
        "auto",
        "Folder of the daily backups, of which a week's are kept. auto: beside the database, named like it with "
        ".backups; off: none.",
        restart=True,
    )
    template_key: str = option(
        "",
        "Key that encrypts templates and pictures of faces in the database (edge-face templates --new-key prints one); "
        "empty: they are not. What is there already is encrypted by edge-face templates --encrypt.",
        secret=True,
        restart=True,
    )
    old_template_key: str = option(
        "", "The key before, for edge-face templates --rekey; empty otherwise.", secret=True, restart=True
    )

    @property
    def backups_folder(self) -> str:
        """Empty: none."""
        if self.backups.lower() == "auto":
            return f"{self.path}.backups"
        return "" if self.backups.lower() == "off" else self.backups


@dataclass(frozen=True, slots=True)
class Api:
    host: str = option(
        "127.0.0.1", "Address to listen on. Other machines need 0.0.0.0 or an own address, and cert.", restart=True
    )
    port: int = option(5000, "Port to listen on; 0: any free one.", low=0, high=65535, restart=True)
    cert: str = option(
        "", "TLS certificate chain (PEM file). With key: https. Renewed files are taken over at once.", restart=True
    )
    key: str = option("", "TLS private key (PEM file).", restart=True)
    insecure: bool = option(False, "Allow a host that other machines reach without TLS.", restart=True)


@dataclass(frozen=True, slots=True)
class Stream:
    jpeg_quality: int = option(70, "JPEG quality of streamed frames.", low=10, high=100)
    legacy_port: int = option(
        0, "A second port, 3001 say, that serves /ws/face-stream too; 0: off.", low=0, high=65535, restart=True
    )


@dataclass(frozen=True, slots=True)
class Mqtt:
    host: str = option("", "Broker; empty: MQTT is off.")
    port: int = option(0, "Broker's port; 0: 1883, or 8883 with tls.", low=0, high=65535)
    username: str = option("", "Broker's user.")
    password: str = option("", "Broker's password.", secret=True)
    tls: bool = option(False, "Connect with TLS.")
    ca: str = option("", "CA certificate (PEM file) that signed the broker's; empty: the system's CAs.")
    cert: str = option("", "Client certificate (PEM file).")
    key: str = option("", "Client certificate's private key (PEM file).")
    version: str = option("5", "MQTT version.", choices=("5", "3.1.1"))
    snapshots: bool = option(
        False,
        "Send the camera's picture (JPEG, topic snapshot) with each event, and when asked by cmd/snapshot. Whoever may "
        "read the broker sees it.",
    )


@dataclass(frozen=True, slots=True)
class HomeAssistant:
    discovery: bool = option(
        True,
        "Where [mqtt] is on: announce this node to Home Assistant, which shows it by itself. no: take that back.",
    )
    prefix: str = option("homeassistant", "Home Assistant's discovery prefix, as in its MQTT options.")


@dataclass(frozen=True, slots=True)
class Webhook:
    url: str = option("", "POST each event to this http(s) address; empty: off.")
    secret: str = option("", "Signs each request (Standard Webhooks): whsec_ and base64, or any text.", secret=True)
    old_secret: str = option(
        "", "Signs each request as well, while receivers change from this secret to the new one.", secret=True
    )
    headers: str = option(
        "",
        "More headers, for a receiver that wants its own key: Name: value, each on an indented line of its own.",
        secret=True,
    )
    timeout: float = option(5.0, "Seconds for an attempt; of a live event never beyond its end.", low=0.1, high=60)
    snapshot: bool = option(
        False,
        "Put a small picture of the camera into live events (snapshot: JPEG in base64). They wait for it for the time "
        "of a frame, at most half a second, and go without it then.",
    )
    events: tuple[str, ...] = option(
        ("PASS",), "Which events: PASS, REJECT, or both with a comma.", choices=("PASS", "REJECT")
    )
    cameras: tuple[str, ...] = option((), "Only events of these cameras, with commas; empty: of all.")
    late: str = option(
        "drop",
        "What happens to an event that expired: drop, or send (as face_event.history).",
        choices=("drop", "send"),
    )


@dataclass(frozen=True, slots=True)
class Remote:
    match_url: str = option(
        "",
        "Send frames with a face to this /match server and append its answers, Unknown as well, to [attendance] csv; "
        "they are used for nothing else. Empty: off. http://any:TOKEN@host:5000/match for another edge-face.",
    )
    interval: float = option(5.0, "Least seconds between two frames of a camera that are sent.", low=0.1, high=86400)


@dataclass(frozen=True, slots=True)
class Attendance:
    csv: str = option("", "Append a row for each PASS visit to this CSV file; empty: off.")
    unknown: bool = option(False, "Also a row named Unknown for each visit of an unknown face.")
    timezone: str = option(
        "", "Time zone of the CSV and of attendance by day, Europe/Paris say; empty: this box's own."
    )


@dataclass(frozen=True, slots=True)
class Log:
    level: str = option("info", "How much is logged.", choices=("debug", "info", "warning", "error"))


SECTIONS: Mapping[str, type[Any]] = {
    "node": Node,
    "camera": Camera,
    "engine": Engine,
    "decision": Decision,
    "storage": Storage,
    "api": Api,
    "stream": Stream,
    "mqtt": Mqtt,
    "homeassistant": HomeAssistant,
    "webhook": Webhook,
    "remote": Remote,
    "attendance": Attendance,
    "log": Log,
}
"""Section name to its dataclass, in the order of `config.ini`."""

REPEATABLE: Mapping[str, str] = {"camera": "front", "webhook": "default"}
"""Sections that may stand several times as `[name:<id>]`, with the id that the plain section alone has."""


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration, checked. `camera` and `webhook` hold the defaults, the plural fields what is in use."""

    node: Node = Node()
    engine: Engine = Engine()
    decision: Decision = Decision()
    storage: Storage = Storage()
    api: Api = Api()
    stream: Stream = Stream()
    mqtt: Mqtt = Mqtt()
    homeassistant: HomeAssistant = HomeAssistant()
    remote: Remote = Remote()
    attendance: Attendance = Attendance()
    log: Log = Log()
    cameras: Mapping[str, Camera] = field(default_factory=lambda: {"front": Camera()})
    webhooks: Mapping[str, Webhook] = field(default_factory=dict)
    demo: bool = False
    file: str = ""
    """The file it was read from; empty: defaults and environment only."""


def limits_of(section: type[Any]) -> dict[str, tuple[dataclasses.Field[Any], Limits]]:
    """Key to its field and limits, in the order of declaration."""
    return {f.name: (f, f.metadata["limits"]) for f in dataclasses.fields(section)}
