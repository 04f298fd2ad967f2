"""What a reload makes of two configurations, and one reload at a time."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from edge_face.clock import SystemClock
from edge_face.errors import ConfigError, StoreError
from edge_face.outputs import unchanged
from edge_face.reload import Plan, Reloader, plan
from edge_face.settings import (
    Api,
    Attendance,
    Camera,
    Config,
    Decision,
    Engine,
    Log,
    Mqtt,
    Node,
    Storage,
    Stream,
    Webhook,
)

OLD = Config(
    node=Node("gate-1"),
    cameras={"front": Camera(source="0"), "back": Camera(source="1")},
    webhooks={"a": Webhook(url="http://a")},
)


def test_nothing_changed() -> None:
    found = plan(OLD, replace(OLD))
    assert found == Plan(OLD, (), ())


def test_what_only_a_start_can_change_stays_and_is_named() -> None:
    new = replace(
        OLD,
        node=Node("gate-2"),
        api=Api(port=1, host="::1"),
        storage=Storage(path="other.db", retention=3),
        stream=Stream(legacy_port=3001, jpeg_quality=30),
    )
    found = plan(OLD, new)
    assert found.needs_restart == (
        "[node] id", "[storage] path", "[api] host", "[api] port", "[stream] legacy_port",
    )  # fmt: skip
    assert found.changed == ("[storage] retention", "[stream] jpeg_quality")
    assert found.config == replace(OLD, storage=Storage(retention=3), stream=Stream(jpeg_quality=30))
    # It is compared with what is in force, so it is named again at the next reload.
    assert plan(found.config, new).needs_restart == found.needs_restart
    assert plan(found.config, new).changed == ()


def test_only_cameras_that_changed_are_touched() -> None:
    new = replace(OLD, cameras={"side": Camera(), "front": Camera(source="0", fps=5)}, decision=Decision(threshold=0.4))
    found = plan(OLD, new)
    assert (found.added, found.removed, found.restarted) == (("side",), ("back",), ("front",))
    assert found.changed == ("[decision] threshold", "[camera] fps", "[camera:back]", "[camera:side]")
    assert plan(OLD, replace(OLD, decision=Decision(frames=3), log=Log("debug"))).restarted == ()


def test_another_engine_begins_every_camera_anew() -> None:
    assert plan(OLD, replace(OLD, engine=Engine(detector="hog"))).restarted == ("front", "back")


def test_which_sinks_go_on() -> None:
    assert unchanged(OLD, replace(OLD, log=Log("debug"))) == {"mqtt", "csv", "webhook:a"}
    assert unchanged(OLD, replace(OLD, mqtt=Mqtt("broker"))) == {"csv", "webhook:a"}
    assert unchanged(OLD, replace(OLD, cameras={"front": Camera()})) == {"csv", "webhook:a"}
    assert unchanged(OLD, replace(OLD, attendance=Attendance("a.csv"))) == {"mqtt", "webhook:a"}
    assert unchanged(OLD, replace(OLD, webhooks={"a": Webhook("http://b")})) == {"mqtt", "csv"}


async def test_a_refusal_is_remembered_until_a_reload_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    answers: list[Config | Exception] = [ConfigError(["[a] b: c", "[d] e: f"]), StoreError("no disk"), OLD]

    def load() -> Config:
        if isinstance(answer := answers.pop(0), Exception):
            raise answer
        return answer

    async def apply(new: Config) -> Plan:
        return plan(OLD, new)

    busy: list[bool] = []
    reloader = Reloader(load, apply, SystemClock(), busy.append)
    task = asyncio.create_task(reloader.run())
    with pytest.raises(ConfigError) as refused:
        await reloader.now("test")
    assert refused.value.problems == ("[a] b: c", "[d] e: f")
    assert reloader.outcome.problems == ("[a] b: c", "[d] e: f")
    assert "[d] e: f" in caplog.text
    with pytest.raises(StoreError):
        await reloader.now("test")
    assert reloader.outcome.problems == ("no disk.",)
    assert (await reloader.now("test")).changed == ()
    assert reloader.outcome.problems == ()
    assert reloader.outcome.reloaded_at
    assert busy == [True, False] * 3
    task.cancel()
