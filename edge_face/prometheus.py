"""The daemon's status in the form that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from edge_face.events import CameraState
from edge_face.memory import MIB

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(status: Mapping[str, Any]) -> bytes:
    """What `Daemon.status` told, as Prometheus text."""
    registry = CollectorRegistry()
    registry.register(_Status(status))
    return generate_latest(registry)


class _Status(Collector):
    def __init__(self, status: Mapping[str, Any]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        status = self._status
        build = InfoMetricFamily("edge_face_build", "Version and node.")
        build.add_metric([], {"version": status["version"], "node": status["node"]})
        yield build
        yield GaugeMetricFamily("edge_face_people", "People who can be recognised.", status["people"])
        yield GaugeMetricFamily("edge_face_faces", "Enrolled faces.", status["faces"])
        yield GaugeMetricFamily("edge_face_uptime_seconds", "Time since the start.", status["uptime_s"])
        synced = float(status["clock"] == "synced")
        yield GaugeMetricFamily("edge_face_clock_synced", "1 while the wall clock follows a time source.", synced)
        storage = status["storage"]
        writable = float(storage["state"] == "ok")
        yield GaugeMetricFamily("edge_face_storage_up", "1 while the database can be written.", writable)
        yield GaugeMetricFamily("edge_face_events_held", "Events in memory that wait for the disk.", storage["held"])
        unknowns = status["unknowns"]
        yield GaugeMetricFamily("edge_face_unknown_visitors", "Unknown visitors who are kept.", unknowns["kept"])
        lost = CounterMetricFamily(
            "edge_face_unknown_visitors_lost", "Visits not noted, or visitors who gave way.", labels=["why"]
        )
        lost.add_metric(["disk"], unknowns["lost"])
        lost.add_metric(["limit"], unknowns["gave_way"])
        yield lost
        yield from _board(status["board"])
        yield from _cameras(status["cameras"])
        yield from _sinks(status["sinks"], status["queues"])


def _board(board: Mapping[str, Any]) -> Iterator[Metric]:
    if board["temperature_c"] is not None:
        help = "Degrees Celsius of the processor; absent where Linux knows of no sensor."
        yield GaugeMetricFamily("edge_face_temperature_celsius", help, board["temperature_c"])
    rss = GaugeMetricFamily("edge_face_memory_rss_bytes", "Memory of a process in RAM.", labels=["process"])
    pss = GaugeMetricFamily(
        "edge_face_memory_pss_bytes", "The same, of shared memory only its part.", labels=["process"]
    )
    for process, memory in board["memory_mib"].items():
        rss.add_metric([process], memory["rss"] * MIB)
        pss.add_metric([process], memory["pss"] * MIB)
    yield from (rss, pss)
    size = "Size of the database, with what SQLite keeps beside it."
    yield GaugeMetricFamily("edge_face_database_bytes", size, board["database_bytes"])


def _cameras(cameras: list[dict[str, Any]]) -> Iterator[Metric]:
    up = GaugeMetricFamily("edge_face_camera_up", "1 while the camera gives frames.", labels=["camera"])
    state = GaugeMetricFamily("edge_face_camera_state", "1: the camera is in this state.", labels=["camera", "state"])
    paused = GaugeMetricFamily("edge_face_camera_paused", "1 while recognition is off.", labels=["camera"])
    frames = CounterMetricFamily("edge_face_frames", "Frames judged.", labels=["camera"])
    dropped = CounterMetricFamily("edge_face_frames_dropped", "Frames that newer ones replaced.", labels=["camera"])
    restarts = CounterMetricFamily("edge_face_camera_restarts", "Starts of the child after its end.", labels=["camera"])
    outgrown = CounterMetricFamily(
        "edge_face_camera_outgrown", "Those of the restarts that were because the child leaked.", labels=["camera"]
    )
    memory = GaugeMetricFamily("edge_face_camera_memory_bytes", "Memory of the child's own.", labels=["camera"])
    decisions = CounterMetricFamily("edge_face_decisions", "Decisions by reason.", labels=["camera", "reason"])
    latency = GaugeMetricFamily(
        "edge_face_latency_seconds", "Grab to decision, of the last frames.", labels=["camera", "quantile"]
    )
    stages = GaugeMetricFamily(
        "edge_face_stage_seconds", "Time of a stage, of the last frames.", labels=["camera", "stage", "quantile"]
    )
    refused = GaugeMetricFamily(
        "edge_face_backend_refused", "1: the backend failed its self-test or crashed.", labels=["camera", "backend"]
    )
    for camera in cameras:
        name = camera["id"]
        up.add_metric([name], float(camera["state"] == "ok"))
        for known in get_args(CameraState):
            state.add_metric([name, known], float(known == camera["state"]))
        paused.add_metric([name], float(camera["paused"]))
        frames.add_metric([name], camera["frames"])
        dropped.add_metric([name], camera["dropped"])
        restarts.add_metric([name], camera["restarts"])
        outgrown.add_metric([name], camera["outgrown"])
        memory.add_metric([name], camera["memory_mib"] * MIB)
        for reason, count in camera["decisions"].items():
            decisions.add_metric([name, reason], count)
        for quantile, took_ms in (camera["latency_ms"] or {}).items():
            latency.add_metric([name, _quantile(quantile)], took_ms / 1000)
        for stage, percentiles in camera["stages_ms"].items():
            for quantile, took_ms in (percentiles or {}).items():
                stages.add_metric([name, stage, _quantile(quantile)], took_ms / 1000)
        for backend in camera["refused_backends"]:
            refused.add_metric([name, backend], 1)
    yield from (up, state, paused, frames, dropped, restarts, outgrown, memory, decisions, latency, stages, refused)


def _sinks(sinks: Mapping[str, Mapping[str, Any]], queues: Mapping[str, Mapping[str, float]]) -> Iterator[Metric]:
    healthy = GaugeMetricFamily("edge_face_sink_up", "1 while the way out is open.", labels=["sink"])
    deliveries = CounterMetricFamily("edge_face_deliveries", "What became of deliveries.", labels=["sink", "outcome"])
    waiting = GaugeMetricFamily("edge_face_outbox_events", "Events that wait for delivery.", labels=["sink"])
    age = GaugeMetricFamily("edge_face_outbox_age_seconds", "Age of the oldest that waits.", labels=["sink"])
    dropped = CounterMetricFamily(
        "edge_face_outbox_dropped", "Deliveries that were given up, by reason.", labels=["sink", "reason"]
    )
    took = HistogramMetricFamily(
        "edge_face_capture_to_publish_seconds", "From the grab to when the receiver had a live event.", labels=["sink"]
    )
    for name, sink in sinks.items():
        healthy.add_metric([name], float(sink["healthy"]))
        for outcome in ("delivered", "expired", "refused", "retries"):
            deliveries.add_metric([name, outcome], sink[outcome])
        queue = queues.get(name, {"count": 0, "oldest_s": 0.0})
        waiting.add_metric([name], queue["count"])
        age.add_metric([name], queue["oldest_s"])
        for reason, count in sink["dropped"].items():
            dropped.add_metric([name, reason], count)
        histogram = sink["capture_to_publish"]
        took.add_metric([name], list(histogram["buckets"].items()), histogram["sum_s"])
    yield from (healthy, deliveries, waiting, age, dropped, took)


def _quantile(percentile: str) -> str:
    """`p95` as Prometheus writes it."""
    return f"{int(percentile.removeprefix('p')) / 100:g}"
