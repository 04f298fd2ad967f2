"""The message from which Home Assistant makes a device."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from edge_face.sinks.discovery import device
from edge_face.sinks.mqtt_messages import Topics, as_json, stats
from tests.support.mqtt import statistics

NAMES = ("front", "Кухня", "厨房", "🙂", 'Tür "1"', "cmd")
KINDS = ("event", "presence", "person", "problem", "fps", "latency", "pause")


def test_the_shape_of_the_message() -> None:
    topics = Topics("gate-1")
    message = device(topics, "gate-1", ("front",), snapshots=True, temperature=True)
    assert set(message) == {"dev", "o", "avty_t", "qos", "cmps"}
    assert message["dev"]["ids"] == ["edge-face-gate-1"]
    assert message["o"]["name"] == "edge-face"
    assert message["avty_t"] == "edge-face/gate-1/status"
    parts = message["cmps"]
    assert set(parts) == {*(f"front_{kind}" for kind in KINDS), "front_snapshot", "temperature"}
    assert {key: part["p"] for key, part in parts.items()} == {
        "front_event": "event", "front_presence": "binary_sensor", "front_person": "sensor",
        "front_problem": "binary_sensor", "front_fps": "sensor", "front_latency": "sensor",
        "front_pause": "switch", "front_snapshot": "image", "temperature": "sensor",
    }  # fmt: skip
    assert parts["front_event"]["event_types"] == ["granted", "denied", "unknown"]
    assert parts["front_presence"]["device_class"] == "occupancy"
    assert parts["front_problem"]["device_class"] == "problem"
    diagnostic = {key for key, part in parts.items() if part.get("entity_category") == "diagnostic"}
    assert diagnostic == {"front_problem", "front_fps", "front_latency", "temperature"}


@pytest.mark.parametrize("node", ["gate-1", "Ворота", "大门", "🚪"])
def test_ids_and_topics_are_ascii_and_never_shared_and_names_stay(node: str) -> None:
    message = device(Topics(node), node, NAMES, snapshots=True, temperature=True)
    parts = message["cmps"]
    assert len(parts) == len(NAMES) * (len(KINDS) + 1) + 1
    ids = [part["unique_id"] for part in parts.values()]
    assert len(set(ids)) == len(ids)
    for key, part in parts.items():
        assert re.fullmatch(r"[a-z0-9_-]+", key)
        assert re.fullmatch(r"[a-z0-9_]+", part["object_id"])
        assert part["default_entity_id"] == f"{part['p']}.{part['object_id']}"
        for name, value in part.items():
            if name.endswith("_topic"):
                assert re.fullmatch(r"edge-face(/[a-z0-9_-]+)+", value), value
    assert message["dev"]["name"] == node
    assert {part["name"] for part in parts.values()} >= {f"{name} visitor" for name in NAMES}
    assert json.loads(as_json(message)) == message
    other = device(Topics("other"), "other", NAMES, snapshots=True, temperature=True)["cmps"]
    assert not {part["unique_id"] for part in other.values()} & set(ids)


def test_what_is_not_there_is_not_announced() -> None:
    parts = device(Topics("gate-1"), "gate-1", ("front",), snapshots=False, temperature=False)["cmps"]
    assert set(parts) == {f"front_{kind}" for kind in KINDS}


def test_the_page_shows_stats_as_they_are() -> None:
    page = (Path(__file__).parents[2] / "docs" / "mqtt.md").read_text()
    shown = json.loads(page.partition("```json\n")[2].partition("```")[0])
    told = stats(statistics())
    assert list(shown) == list(told)
    assert list(shown["gallery"]) == list(told["gallery"])
    assert list(shown["cameras"]["front"]) == list(told["cameras"]["front"])


def test_stats_name_cameras_as_topics_do() -> None:
    told = stats(statistics())
    assert told == {
        "version": "1", "clock": "synced", "uptime_s": 4.5, "temperature": 51.5,
        "gallery": {"people": 2, "faces": 3}, "fps": 9.5, "latency_ms": 80.0,
        "cameras": {
            "front": {"fps": 9.5, "latency_ms": 80.0},
            Topics("x").of("Кухня", "").split("/")[2]: {"fps": 0, "latency_ms": None},
        },
    }  # fmt: skip
