"""MQTT, against a real Mosquitto."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import json
import logging
import subprocess
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from edge_face.errors import EdgeFaceError
from edge_face.events import CameraState, CameraStatus, Presence
from edge_face.settings import Config, Mqtt, Node
from edge_face.sinks import mqtt, mqtt_link
from edge_face.sinks.mqtt import expiry_s, probe
from edge_face.sinks.mqtt_link import Link
from tests.support.broker import Broker, Certificates, until, watching
from tests.support.mqtt import gate
from tests.support.publishing import deadline, event

BASE = "edge-face/gate-1"
VERSIONS = pytest.mark.parametrize("version", ["5", "3.1.1"])


@VERSIONS
async def test_an_event_arrives_unretained_with_its_time_left(broker: Broker, tmp_path: Path, version: str) -> None:
    async with watching(broker) as live, gate(tmp_path, broker.options(version=version)) as (_, publisher):
        sent = await publisher.publish(event("Екатерина", camera="Кухня"), deadline(4.9))
        assert await publisher.drain(2)
        await until(live.events)
        async with watching(broker) as later:
            await until(lambda: later.texts("/status"))
            await asyncio.sleep(0.1)
        assert later.events() == []
    assert live.events() == [sent.payload()]
    [message] = [m for m in live.messages if str(m.topic).endswith("/event")]
    assert str(message.topic).startswith(f"{BASE}/x-")
    assert str(message.topic).isascii()
    assert (message.qos, message.retain) == (1, False)
    left = getattr(message.properties, "MessageExpiryInterval", None)
    assert left == (4 if version == "5" else None)


@pytest.mark.parametrize(("left", "interval"), [(4.99, 4), (2.0, 2), (1.0, 1), (0.7, 1), (0.01, 1)])
def test_the_expiry_is_rounded_down_and_never_zero(left: float, interval: int) -> None:
    assert expiry_s(left) == interval


@VERSIONS
async def test_status_is_online_and_offline_and_the_will(broker: Broker, tmp_path: Path, version: str) -> None:
    async with watching(broker, f"{BASE}/status") as watcher:
        async with gate(tmp_path, broker.options(version=version)) as (sink, _):
            await until(lambda: watcher.texts("/status") == ["online"])
            link = sink._link
            assert link is not None
            link.abort()  # as a power cut: the broker only sees the connection go
            await until(lambda: watcher.texts("/status") == ["online", "offline", "online"])
        await until(lambda: watcher.texts("/status")[3:] == ["offline"])
        async with watching(broker) as later:
            await until(lambda: later.texts("/status"))
        assert [(m.retain, m.qos) for m in later.messages if str(m.topic).endswith("/status")] == [(True, 1)]
        assert later.texts("/status") == ["offline"]


async def test_an_end_at_the_moment_of_the_brokers_answer_is_an_end(broker: Broker) -> None:
    link = Link(broker.options(), "edge-face-gate-1")
    await link.open()
    asking = asyncio.create_task(link.listen_to("some/topic"))
    heard = link._client.on_subscribe
    assert heard is not None

    def ended_then(*answer: Any) -> None:
        heard(*answer)
        asking.cancel()

    link._client.on_subscribe = ended_then
    with pytest.raises(asyncio.CancelledError):
        await asking
    await link.close()


async def test_the_newest_state_is_kept_and_sent_again(broker: Broker, tmp_path: Path) -> None:
    async with gate(tmp_path, broker.options()) as (sink, publisher):
        async with watching(broker) as watcher:
            await until(lambda: watcher.texts("/presence"))
            assert [json.loads(text)["present"] for text in watcher.texts("/presence")] == [False]
            assert watcher.texts("/camera") == []
            publisher.state(CameraStatus("front", "starting"))
            publisher.state(CameraStatus("front", "ok"))
            publisher.state(Presence("front", True, ("Katya",), 1, 1736400000.0))
            await until(lambda: watcher.texts("/camera") == ["ok"] and len(watcher.texts("/presence")) == 2)
        broker.kill()
        await until(lambda: not sink.healthy)
        states: tuple[CameraState, ...] = ("lost", "ok", "ended")
        for state in states:
            publisher.state(CameraStatus("front", state))
        publisher.state(Presence("front", True, ("Bob",), 1, 1736400001.0))
        broker.start()
        await until(lambda: sink.healthy)
        async with watching(broker) as earlier:  # while the states may still be on their way
            await until(lambda: earlier.texts("/camera") and "Bob" in "".join(earlier.texts("/presence")))
        async with watching(broker) as watcher:
            await until(lambda: watcher.texts("/camera") and watcher.texts("/presence"))
            assert all(message.retain for message in watcher.messages)
            assert watcher.texts("/camera") == ["lost"]
            assert [json.loads(text) for text in watcher.texts("/presence")] == [
                {"present": True, "persons": ["Bob"], "faces": 1, "since": 1736400001.0}
            ]
    async with watching(broker) as watcher:
        await until(lambda: watcher.texts("/presence"))
        assert json.loads(watcher.texts("/presence")[0])["present"] is False  # nobody is seen by a gate that is off


async def test_presence_of_an_earlier_run_is_cleared(broker: Broker, tmp_path: Path) -> None:
    topic = f"{BASE}/front/presence"
    async with aiomqtt.Client("127.0.0.1", broker.port) as earlier:
        await earlier.publish(topic, '{"present":true}', qos=1, retain=True)
    async with gate(tmp_path, broker.options()), watching(broker, topic) as watcher:
        await until(lambda: any(not json.loads(text)["present"] for text in watcher.texts("/presence")))


@VERSIONS
async def test_an_event_that_expired_during_an_outage_is_never_sent(
    broker: Broker, tmp_path: Path, version: str
) -> None:
    async with gate(tmp_path, broker.options(version=version)) as (sink, publisher):
        broker.kill()
        await until(lambda: not sink.healthy)
        await publisher.publish(event("Old"), deadline(0.4))
        await asyncio.sleep(0.5)
        await publisher.publish(event("New"), deadline(5))
        broker.start()
        async with watching(broker) as watcher:
            await until(watcher.events)
            await publisher.publish(event("Newer"), deadline(5))
            await until(lambda: len(watcher.events()) == 2)
        assert [e["name"] for e in watcher.events()] == ["New", "Newer"]
        assert publisher.counters["mqtt"].expired == 1


async def test_an_event_in_flight_when_the_broker_dies_goes_out_once_it_is_back(broker: Broker, tmp_path: Path) -> None:
    async with gate(tmp_path, broker.options()) as (_, publisher):
        broker.freeze()
        await publisher.publish(event("Ada"), deadline(5))
        await asyncio.sleep(0.1)  # the kernel has taken it; the broker never will
        broker.kill()
        broker.start()
        async with watching(broker) as watcher:
            await until(watcher.events)
            assert [e["name"] for e in watcher.events()] == ["Ada"]


async def test_a_frozen_broker_blocks_nothing(broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_link, "CONNACK_S", 0.5)
    loop = asyncio.get_running_loop()
    gaps: list[float] = []

    async def tick() -> None:
        before = loop.time()
        while True:
            await asyncio.sleep(0.005)
            gaps.append((now := loop.time()) - before)
            before = now

    async with gate(tmp_path, broker.options()) as (sink, publisher):
        ticker = asyncio.create_task(tick())
        broker.freeze()
        publisher.state(Presence("front", True))
        for number in range(5):
            await publisher.publish(event(f"Old {number}"), deadline(0.4))
        assert await publisher.drain(3)
        await until(lambda: not sink.healthy)
        assert publisher.counters["mqtt"].expired == 5
        await asyncio.sleep(1)  # attempts to connect that nobody answers
        broker.thaw()
        await until(lambda: sink.healthy)
        async with watching(broker) as watcher:
            await publisher.publish(event("New"), deadline(5))
            await until(watcher.events)
            assert [e["name"] for e in watcher.events()] == ["New"]
        ticker.cancel()
    gaps.sort()
    assert gaps[-2] < 0.1
    assert gaps[-1] < 0.3  # one may be the machine's own; a wait for this broker takes 0.4 s and more


async def test_without_an_acknowledgement_in_time_the_connection_is_dropped(broker: Broker, tmp_path: Path) -> None:
    async with gate(tmp_path, broker.options(), retry_s=30) as (sink, publisher):
        broker.freeze()
        await publisher.publish(event("Old"), deadline(0.3))
        assert await publisher.drain(1)
        await until(lambda: not sink.healthy, 0.5)  # so nothing of it waits in this machine's buffers
        broker.kill()


async def test_an_unacknowledged_message_is_taken_back_from_the_kernel() -> None:
    ends: list[str] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x20\x02\x00\x00")  # CONNACK, and never anything else
        try:
            await reader.read()
            ends.append("end")
        except ConnectionResetError:
            ends.append("reset")
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    link = mqtt_link.Link(Mqtt(host="127.0.0.1", port=port, version="3.1.1"), "gate")
    await link.open()
    with pytest.raises(mqtt_link.LinkLost, match="did not acknowledge in time"):
        await link.send("topic", b"open the door", 0.1)
    assert link.lost.done()
    await until(lambda: ends)
    server.close()
    assert ends == ["reset"]  # so that no retransmission delivers it later


async def test_a_lost_broker_is_tried_at_the_interval_and_told_once(
    broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broker.stop()
    caplog.set_level(logging.INFO, "edge_face.sinks.mqtt")
    async with gate(tmp_path, broker.options(), connected=False, retry_s=0.1) as (sink, _):
        await asyncio.sleep(0.5)
        assert not sink.healthy
        broker.start()
        await until(lambda: sink.healthy)
    where = f"the broker 127.0.0.1:{broker.port}"
    assert caplog.messages == [f"{where} cannot be reached (Connection refused)", f"connected to {where}"]
    assert mqtt.RETRY_S == 5


@VERSIONS
async def test_user_and_password(tmp_path: Path, caplog: pytest.LogCaptureFixture, version: str) -> None:
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "gate", "right"], check=True, capture_output=True)
    broker = Broker(tmp_path, "allow_anonymous false", f"password_file {passwords}").start()
    try:
        config = config_for(broker.options(username="gate", password="right", version=version))
        assert await probe(config) == f"connected to the broker 127.0.0.1:{broker.port}"
        wrong = broker.options(username="gate", password="wrong", version=version)
        with pytest.raises(EdgeFaceError, match=r"refused the connection .*check .mqtt. username and password"):
            await probe(config_for(wrong))
        async with gate(tmp_path, wrong, connected=False, retry_s=0.1):
            await asyncio.sleep(0.4)
        assert [r.message for r in caplog.records if "username and password" in r.message][1:] == []
        assert "wrong" not in caplog.text
    finally:
        broker.stop()


async def test_what_the_broker_does_not_take_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rules = tmp_path / "acl"
    rules.write_text("topic read #\ntopic write +/+/status\n")
    broker = Broker(tmp_path, "allow_anonymous true", f"acl_file {rules}").start()
    try:
        async with gate(tmp_path, broker.options()) as (sink, publisher):
            await publisher.publish(event(), deadline())
            assert await publisher.drain(2)
            assert sink.healthy
            assert publisher.counters["mqtt"].refused == 1
        assert f"does not take {BASE}/front/event: Not authorized" in caplog.text
        assert caplog.text.count(f"does not take {BASE}/front/presence") == 1
    finally:
        broker.stop()


# paho leaves the socket of a failed handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
async def test_tls(tmp_path: Path) -> None:
    made = Certificates(tmp_path)
    own = (f"cafile {made.ca}", f"certfile {made.cert}", f"keyfile {made.key}")
    broker = Broker(tmp_path, "allow_anonymous true", *own).start()
    strict = Broker(tmp_path, "allow_anonymous true", *own, "require_certificate true").start()
    try:
        good = broker.options(host="localhost", tls=True, ca=made.ca)
        assert "connected" in await probe(config_for(good))
        async with gate(tmp_path, good) as (_, publisher):
            await publisher.publish(event(), deadline())
            assert await publisher.drain(2)
            assert publisher.counters["mqtt"].delivered == 1
        for options, words in (
            ({"host": "127.0.0.1"}, r"certificate .* is not accepted \(IP address mismatch.*check .mqtt. host and ca"),
            ({"ca": ""}, r"certificate .* is not accepted \(.*check .mqtt. host and ca"),
            ({"tls": False}, "closed the connection at once|does not answer"),
            ({"ca": str(tmp_path / "none.pem")}, "No such file"),
        ):
            with pytest.raises(EdgeFaceError, match=words):
                await probe(config_for(dataclasses.replace(good, **options)))
        anonymous = strict.options(host="localhost", tls=True, ca=made.ca)
        with pytest.raises(EdgeFaceError, match=r"closed the connection at once: check .* cert and key"):
            await probe(config_for(anonymous))
        own_certificate = dataclasses.replace(anonymous, cert=made.client_cert, key=made.client_key)
        assert "connected" in await probe(config_for(own_certificate))
    finally:
        broker.stop()
        strict.stop()
        gc.collect()


async def test_the_probe_leaves_a_running_gate_alone_and_names_what_is_wrong(broker: Broker, tmp_path: Path) -> None:
    async with watching(broker, f"{BASE}/status") as watcher, gate(tmp_path, broker.options()) as (sink, _):
        await probe(config_for(broker.options()))
        await asyncio.sleep(0.1)
        assert sink.healthy
        assert watcher.texts("/status") == ["online"]
    broker.stop()
    with pytest.raises(EdgeFaceError, match=r"cannot be reached \(Connection refused\)"):
        await probe(config_for(broker.options()))
    with pytest.raises(EdgeFaceError, match="cannot be reached"):
        await probe(config_for(broker.options(host="no-such-host.invalid")))
    with pytest.raises(EdgeFaceError, match="cannot be reached"):
        await probe(config_for(broker.options(host="not..a.host")))


async def test_the_probe_does_not_wait_for_ever(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "PROBE_S", 0.3)
    broker.freeze()
    with pytest.raises(EdgeFaceError, match="does not answer"):
        await probe(config_for(broker.options()))


def config_for(options: Mqtt) -> Config:
    return Config(node=Node(id="gate-1"), mqtt=options)
