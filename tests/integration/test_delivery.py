"""Outages of all that events go to, with a real daemon: history is complete, and nothing expired is ever live."""

from __future__ import annotations

import asyncio
import csv
import json
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from edge_face.sinks.csv import local_time
from tests.integration.test_overload import EILEEN, passes, visits
from tests.support.broker import Broker, Certificates, arriving, until, watching
from tests.support.daemon import Daemon, edge_face, events, write_config

TTL_S = 2.0
OUTAGE_S = 60.0
VISIT_S = 1.1


class Receivers:
    """A webhook's receiver for each path, whose manners can be changed: `ok`, `500`, `410`, `slow` or `cut`."""

    def __init__(self) -> None:
        self.url = ""
        self.manners: dict[str, str] = {}
        self.asked: dict[str, list[tuple[float, dict[str, Any]]]] = {}
        """Each request with its Unix time."""
        self.taken: dict[str, list[tuple[float, dict[str, Any]]]] = {}
        """Those that were answered 204."""

    async def handle(self, request: web.Request) -> web.Response:
        name, body = request.path.strip("/"), await request.json()
        manner = self.manners.get(name, "ok")
        self.asked.setdefault(name, []).append((time.time(), body))
        if manner == "cut":
            assert request.transport
            request.transport.abort()
        if manner == "slow":
            await asyncio.sleep(3)
        if manner != "ok":
            return web.Response(status=int(manner) if manner.isdigit() else 503)
        self.taken.setdefault(name, []).append((time.time(), body))
        return web.Response(status=204)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receivers]:
    receivers = Receivers()
    app = web.Application()
    app.router.add_post("/{name}", receivers.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receivers.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield receivers
    finally:
        await runner.cleanup()


def gate(folder: Path, broker: dict[str, Any], **sections: dict[str, Any]) -> Path:
    """The configuration of a gate through which Eileen comes nearly once a second."""
    config = write_config(
        folder,
        {
            "camera": {"source": visits(folder, 0.6, VISIT_S - 0.6), "loop": "true", "fps": 0},
            "decision": {"cooldown": 0, "presence_timeout": 0.3, "event_ttl": TTL_S},
            "mqtt": broker,
            **sections,
        },
    )
    (folder / "Eileen.jpg").write_bytes(EILEEN["Eileen"])
    done = edge_face("enroll", "Eileen", folder / "Eileen.jpg", config=config)
    assert done.returncode == 0, done.stderr
    return config


@pytest.mark.slow
@pytest.mark.paired
async def test_everything_is_away_for_a_minute(tmp_path: Path) -> None:
    broker = Broker(tmp_path).start()
    history = ("steady", "500", "slow", "cut")
    async with receiving() as receivers:
        hooks = {f"webhook:{name}": {"url": f"{receivers.url}/{name}", "late": "send"} for name in history}
        hooks |= {f"webhook:{name}": {"url": f"{receivers.url}/{name}"} for name in ("410", "live")}
        config = gate(
            tmp_path,
            {"host": "127.0.0.1", "port": broker.port},
            webhook={"timeout": 1},
            attendance={"csv": tmp_path / "attendance.csv"},
            **hooks,
        )
        try:
            async with arriving(broker) as arrivals:
                with Daemon(config) as daemon:
                    await until(lambda: len(passes(arrivals)) >= 5, 60)
                    away = time.time()
                    receivers.manners |= {name: name for name in ("500", "410", "slow", "cut")} | {"live": "500"}
                    broker.kill()
                    await asyncio.sleep(OUTAGE_S)
                    broker.start()
                    back = time.time()
                    receivers.manners = {"410": "410"}
                    await until(lambda: sum(at > back for at, _ in passes(arrivals)) >= 5, 60)
                    await until(lambda: len(receivers.taken["live"]) >= 8, 60)
                    broker.freeze()  # accepts, and never answers
                    await asyncio.sleep(8)
                    broker.thaw()
                    thawed = time.time()
                    await until(lambda: sum(at > thawed for at, _ in passes(arrivals)) >= 5, 60)
                    await asyncio.to_thread(daemon.wait_for, "degraded")  # the one that is gone for good
                    assert (await asyncio.to_thread(daemon.end, limit_s=20))[0] == 0
                ended = time.time()
                with Daemon(config) as daemon:  # brings what was not delivered yet
                    targets = [receivers.taken[name] for name in history]
                    await asyncio.to_thread(daemon.wait_for, "ok", "degraded")
                    await until(lambda: len({taken[-1][1]["seq"] for taken in targets}) == 1, 30)
                    assert (await asyncio.to_thread(daemon.end, limit_s=20))[0] == 0
            async with watching(broker) as watcher:
                await until(lambda: watcher.texts("/status"))
            assert watcher.texts("/status") == ["offline"]
            assert [json.loads(text)["present"] for text in watcher.texts("/presence")] == [False]
        finally:
            broker.stop()

        stored = events(config)
        passed = {event["seq"]: event for event in stored if event["status"] == "PASS"}
        assert [event["seq"] for event in stored] == list(range(1, len(stored) + 1))
        meanwhile = [event for event in passed.values() if away < event["timestamp"] < back]
        assert len(meanwhile) >= OUTAGE_S / VISIT_S * 0.6, "the gate went on"

        live = [*passes(arrivals), *receivers.taken["live"], *receivers.asked["live"], *receivers.asked["410"]]
        for at, event in live:
            assert at < event["expires_at"] + 0.1, f"{at - event['expires_at']:.1f} s after its end"
        for channel in (passes(arrivals), receivers.taken["live"]):
            seqs = [event["seq"] for _, event in channel]
            assert seqs == sorted(set(seqs)), "twice, or out of order"
        assert not {event["seq"] for _, event in passes(arrivals)} & {
            event["seq"] for event in meanwhile if event["expires_at"] < back
        }
        assert sum(away < at < ended for at, _ in receivers.asked["410"]) == 1, "it wanted nothing more"

        for name in history:
            bodies = [body for _, body in receivers.taken[name]]
            in_doubt = {"slow"}  # it was given up while it was answering: the sender cannot know
            seqs = [body["seq"] for body in bodies]
            assert seqs == sorted(set(seqs)) or name in in_doubt, f"{name}: twice, or out of order"
            last = max(seqs)
            assert set(seqs) == {seq for seq in passed if seq <= last}, f"{name}: not complete"
            assert last >= max(passed) - 3
            for at, body in receivers.taken[name]:
                late = body["type"] == "face_event.history"
                assert late or at < body["expires_at"] + 0.1
                original = passed[body["seq"]]
                assert body | {"type": "face_event"} == original, "with its original time"
        with (tmp_path / "attendance.csv").open(newline="", encoding="utf-8") as file:
            rows = [tuple(row) for row in csv.reader(file)][1:]
        assert rows == [("Eileen", local_time(event["timestamp"])) for event in passed.values()]
        print(f"{len(stored)} events, {len(passes(arrivals))} PASS by MQTT, {len(meanwhile)} while all was away")


@pytest.mark.slow
@pytest.mark.paired
@pytest.mark.parametrize(("wrong", "words"), [("host", "is not accepted"), ("password", "username and password")])
async def test_a_broker_that_is_not_ours_stops_nothing_else(tmp_path: Path, wrong: str, words: str) -> None:
    made = Certificates(tmp_path)
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "gate", "right"], check=True, capture_output=True)
    own = (f"cafile {made.ca}", f"certfile {made.cert}", f"keyfile {made.key}")
    broker = Broker(tmp_path, "allow_anonymous false", f"password_file {passwords}", *own).start()
    right = {"host": "localhost", "port": broker.port, "tls": "true", "ca": made.ca, "username": "gate"}
    right["password"] = "right"
    options = right | ({"host": "127.0.0.1"} if wrong == "host" else {"password": "wrong"})
    try:
        async with receiving() as receivers:
            config = gate(tmp_path, options, webhook={"url": f"{receivers.url}/steady"})
            with Daemon(config) as daemon:
                await until(lambda: len(receivers.taken.get("steady", ())) >= 5, 60)
                assert daemon.health() == "degraded"
                assert daemon.log.count(words) == 1, daemon.log
                assert daemon.end()[0] == 0
            config.write_text(
                config.read_text().replace("host = 127.0.0.1", "host = localhost").replace("= wrong", "= right")
            )
            with Daemon(config) as daemon:
                await asyncio.to_thread(daemon.wait_for, "ok")
                assert daemon.end()[0] == 0
        seqs = [body["seq"] for _, body in receivers.taken["steady"]]
        assert seqs == sorted(set(seqs))
    finally:
        broker.stop()
