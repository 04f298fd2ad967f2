"""`/metrics` of a real daemon, read by Prometheus's own parser, and the page that lists it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge_face import prometheus
from tests.integration.test_daemon import write_clip
from tests.support.api import STATUS
from tests.support.broker import Broker, until, watching
from tests.support.daemon import Daemon, edge_face, write_config
from tests.support.photos import astronaut, blank, hopper
from tests.support.receiver import Receiver

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


async def test_a_daemon_that_lets_somebody_in(
    tmp_path: Path, broker: Broker, receiver: Receiver, eileen: bytes
) -> None:
    clip = write_clip(tmp_path / "clip.avi", (astronaut(), 1), (blank(), 0.5), (hopper(), 1), (blank(), 0.5))
    config = write_config(
        tmp_path,
        {
            "camera": {"source": clip, "loop": "true"},
            "mqtt": {"host": "127.0.0.1", "port": broker.port},
            "webhook:door": {"url": receiver.url},
            "webhook:gone": {"url": "http://127.0.0.1:9/nobody"},
            "decision": {"cooldown": 600, "event_ttl": 1},
        },
    )
    (tmp_path / "e.jpg").write_bytes(eileen)
    assert edge_face("enroll", "Eileen", tmp_path / "e.jpg", config=config).returncode == 0
    samples: Samples = {}
    async with watching(broker) as watcher:
        with Daemon(config) as daemon:
            daemon.wait_for("ok", "degraded")

            def told() -> bool:
                samples.clear()
                samples.update(parsed(daemon.get("/metrics").text))
                return (
                    ("edge_face_decisions_total", frozenset({("camera", "front"), ("reason", "unknown")})) in samples
                    and any(name == "edge_face_outbox_dropped_total" for name, _ in samples)
                    and any(
                        name == "edge_face_memory_pss_bytes" and ("process", "camera:front") in labels
                        for name, labels in samples
                    )
                )

            await until(told, 40)
            events = watcher.events()
    assert value(samples, "edge_face_decisions_total", camera="front", reason="match") == 1
    assert value(samples, "edge_face_frames_total", camera="front") > 10
    assert value(samples, "edge_face_camera_state", camera="front", state="ok") == 1
    assert value(samples, "edge_face_stage_seconds", camera="front", stage="encode", quantile="0.5") > 0

    took = "edge_face_capture_to_publish_seconds"
    delivered = value(samples, "edge_face_deliveries_total", sink="mqtt", outcome="delivered")
    assert value(samples, f"{took}_count", sink="mqtt") == delivered >= len(events) - 1
    assert value(samples, f"{took}_count", sink="webhook:door") == 1
    assert value(samples, f"{took}_count", sink="webhook:gone") == 0
    slowest = max(event["latency_ms"] for event in events) / 1000
    assert 0 < value(samples, f"{took}_sum", sink="mqtt") < delivered
    # Publishing begins after the decision, whose own latency the event tells.
    assert value(samples, f"{took}_bucket", sink="mqtt", le="10.0") == delivered
    faster = [float(limit) for limit in _limits(samples) if float(limit) < slowest / 2]
    assert all(value(samples, f"{took}_bucket", sink="mqtt", le=f"{limit}") < delivered for limit in faster)
    assert value(samples, "edge_face_outbox_dropped_total", sink="webhook:gone", reason="expired") == 1

    daemon_memory = value(samples, "edge_face_memory_rss_bytes", process="daemon")
    assert 20 << 20 < value(samples, "edge_face_memory_pss_bytes", process="daemon") <= daemon_memory < 1 << 30
    assert value(samples, "edge_face_memory_pss_bytes", process="camera:front") > 20 << 20
    assert value(samples, "edge_face_database_bytes") > 4096


def _limits(samples: Samples) -> set[str]:
    return {dict(labels)["le"] for name, labels in samples if name.endswith("_publish_seconds_bucket")} - {"+Inf"}


@pytest.mark.parametrize("direction", ["listed", "measured"])
def test_the_page_lists_what_there_is(direction: str) -> None:
    status: dict[str, Any] = STATUS  # with one of everything
    families = list(text_string_to_metric_families(prometheus.exposition(status).decode()))
    suffix = {"counter": "_total"}
    measured = {family.name + suffix.get(family.type, "") for family in families}
    listed = set(re.findall(r"`(edge_face_\w+)`", "".join(re.findall(r"^\| `edge_face.*?\|", PAGE.read_text(), re.M))))
    assert measured - listed == set() if direction == "measured" else listed - measured == set()
    if direction == "listed":
        for family in families:
            row = next(line for line in PAGE.read_text().splitlines() if re.search(rf"^\|.*`{family.name}", line))
            for label in {label for sample in family.samples for label in sample.labels} - {"le"}:
                assert f"`{label}`" in row, (family.name, label)
