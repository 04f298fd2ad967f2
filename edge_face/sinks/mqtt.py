"""MQTT: events while they are live, states retained, and a will for when this node goes away."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import chain, repeat
from typing import Any, Protocol

import aiomqtt

from edge_face.clock import Clock
from edge_face.errors import EdgeFaceError
from edge_face.events import Event, State
from edge_face.publish import AskAgain, Pictures, Refused, RetryLater
from edge_face.settings import Config
from edge_face.sinks.discovery import Discovery, device
from edge_face.sinks.mqtt_commands import Commands
from edge_face.sinks.mqtt_link import Link, LinkLost, PublishRefused
from edge_face.sinks.mqtt_messages import Topics, as_json, nobody, stats
from edge_face.sinks.mqtt_snapshots import NoSnapshots, Snapshots
from edge_face.slugs import slug

_log = logging.getLogger(__name__)

RETRY_S = 5.0
"""From the beginning of one attempt to connect to that of the next."""
STABLE_S = 30.0
"""A connection that held this long was a good one: what goes wrong afterwards is logged anew."""
ACK_S = 5.0
FAREWELL_S = 1.0
STATS_S = 30.0
FIRST_STATS_S = 5.0
PROBE_S = 5.0


class Cameras(Pictures, Protocol):
    """What may be asked of the cameras by MQTT."""

    def pause_soon(self, paused: bool, cameras: Iterable[str]) -> None:
        """Recognition of these off or on."""


class MqttSink:
    """Keeps a connection and speaks over it. No message of a connection that was lost is ever sent again by it."""

    name = "mqtt"
    history = False
    """Whatever listens there may move a door."""

    def __init__(
        self,
        config: Config,
        cameras: Cameras,
        status: Callable[[], Mapping[str, Any]],
        clock: Clock,
        *,
        on_reload: Callable[[str], None],
        retry_s: float = RETRY_S,
    ) -> None:
        """`status`: the daemon's, from the first connection on. `on_reload`: told by whom it is asked."""
        self._config = config.mqtt
        self._status = status
        self._clock = clock
        self._retry_s = retry_s
        self._topics = Topics(config.node.id)
        self._snapshots = (Snapshots if config.mqtt.snapshots else NoSnapshots)(self._topics, cameras.picture)
        self._commands = Commands(
            self._topics, tuple(config.cameras), cameras.pause_soon, self._snapshots.ask, on_reload
        )
        self._discovery = Discovery(
            config.homeassistant,
            self._topics,
            announce=self._keep_first,
            again=self._tell_all,
            message=lambda: device(
                self._topics,
                config.node.id,
                tuple(config.cameras),
                snapshots=config.mqtt.snapshots,
                temperature=stats(status())["temperature"] is not None,
            ),
        )
        self._link: Link | None = None
        self._up = asyncio.Event()
        # Until something is known, nobody is there: an earlier run may have left "present" with the broker.
        self._states = {self._topics.of(camera, "presence"): nobody() for camera in config.cameras}
        self._unsent: dict[str, None] = {}
        """Topics of `_states` to be sent, in the order in which they changed."""
        self._changed = asyncio.Event()
        self._stats_due = asyncio.Event()
        self._told: set[str] = set()

    @property
    def healthy(self) -> bool:
        return self._link is not None

    def wants(self, event: Event) -> bool:
        return event.status != "NO_FACE"

    async def deliver(self, payload: Mapping[str, Any], deadline: float | None, late: bool) -> None:  # noqa: ARG002
        """Publish, and wait for the broker's acknowledgement; without a connection wait for that."""
        if self._link is None:
            await self._up.wait()
            raise AskAgain("connected to the broker only now")
        link = self._link
        left = ACK_S if deadline is None else deadline - self._clock.monotonic()
        if left <= 0:
            raise RetryLater("not in time for the broker")
        expiry = None if deadline is None or self._config.version != "5" else expiry_s(left)
        try:
            await link.send(self._topics.of(str(payload["camera"]), "event"), as_json(payload), left, expiry_s=expiry)
        except PublishRefused as error:
            raise Refused(str(error)) from error
        except LinkLost as error:
            raise RetryLater(str(error)) from error
        except asyncio.CancelledError:
            link.abort()  # the caller's time is up: nothing of it may leave this machine any more
            raise
        self._snapshots.want([payload["camera"]])

    def state(self, change: State) -> None:
        if (message := self._topics.message(change)) is not None:
            self._keep(*message)

    def _keep(self, topic: str, value: bytes) -> None:
        """To be sent, and sent again on each new connection."""
        self._states[topic] = value
        self._unsent.pop(topic, None)
        self._unsent[topic] = None
        self._changed.set()

    def _keep_first(self, topic: str, value: bytes) -> None:
        """The same, before all states."""
        self._states = {topic: value} | {other: kept for other, kept in self._states.items() if other != topic}
        self._unsent = {topic: None} | self._unsent
        self._changed.set()

    def _tell_all(self) -> None:
        self._unsent = dict.fromkeys(self._states)
        self._stats_due.set()
        self._changed.set()

    async def run(self) -> None:
        """Connect, and connect again, until cancelled; then say `offline` and go."""
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            link = self._new_link()
            try:
                await self._session(link)
            except LinkLost as error:
                if loop.time() - started > STABLE_S:
                    self._told.clear()
                self._tell(logging.WARNING, str(error))
            except asyncio.CancelledError:
                await self._farewell(link)
                raise
            finally:
                link.abort()
            await asyncio.sleep(max(0.0, started + self._retry_s - loop.time()))

    async def close(self) -> None:
        """`run` has closed the connection already."""

    def _new_link(self) -> Link:
        return Link(self._config, self._topics.client_id, will=(self._topics.status, b"offline"))

    async def _session(self, link: Link) -> None:
        """One connection. Ends by raising LinkLost."""
        await link.open()
        await self._send_retained(link, self._topics.status, b"online")
        await self._commands.subscribe(link)
        self._unsent = dict.fromkeys(self._states)
        await self._discovery.begin(link)
        self._tell(logging.INFO, f"connected to the {link.where}")
        link.lost.add_done_callback(lambda _: self._changed.set())
        self._link = link
        self._up.set()
        helpers = [
            asyncio.create_task(work)
            for work in (self._listen(link), self._send_stats(link), self._snapshots.run(link))
        ]
        for helper in helpers:
            helper.add_done_callback(lambda _: self._changed.set())
        try:
            while True:
                self._changed.clear()
                while self._unsent:
                    topic = next(iter(self._unsent))
                    del self._unsent[topic]
                    await self._send_retained(link, topic, self._states[topic])
                link.check()
                for helper in helpers:
                    if helper.done():
                        helper.result()  # raises what must not happen, and so ends the process
                await self._changed.wait()
        finally:
            for helper in helpers:
                helper.cancel()
            self._up.clear()
            self._link = None

    async def _listen(self, link: Link) -> None:
        """Until the connection ends; `_session` hears of the end as well."""
        with suppress(aiomqtt.MqttError):
            async for message in link.messages:
                if not self._discovery.take(message):
                    self._commands.take(message)

    async def _send_stats(self, link: Link) -> None:
        """At once, soon again (after a start there is nothing to tell at first), and then now and then."""
        with suppress(LinkLost):
            for pause_s in chain((0.0, FIRST_STATS_S), repeat(STATS_S)):
                self._stats_due.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._stats_due.wait()
                link.post(self._topics.stats, as_json(stats(self._status())), retain=True)

    async def _send_retained(self, link: Link, topic: str, value: bytes) -> None:
        try:
            await link.send(topic, value, ACK_S, retain=True)
        except PublishRefused as error:
            self._tell(logging.ERROR, str(error))  # the other topics may still be allowed

    async def _farewell(self, link: Link) -> None:
        """A wanted end: nobody is seen any more, and the node is offline, without waiting for the will."""
        if link.lost.done() or not link.is_open:
            return
        try:
            async with asyncio.timeout(FAREWELL_S):
                for topic in list(self._unsent):
                    if not topic.endswith("/presence"):
                        await self._send_retained(link, topic, self._states[topic])
                for topic, value in list(self._states.items()):
                    if topic.endswith("/presence") and (topic in self._unsent or json.loads(value)["present"]):
                        await self._send_retained(link, topic, nobody(self._clock.wall()))
                await self._send_retained(link, self._topics.status, b"offline")
                await link.close()
        except (LinkLost, TimeoutError):
            pass  # then the broker sends the will

    def _tell(self, level: int, sentence: str) -> None:
        """Each sentence once until a connection held: a wrong password is no news every five seconds."""
        _log.log(logging.DEBUG if sentence in self._told else level, "%s", sentence)
        self._told.add(sentence)


async def probe(config: Config) -> str:
    """Connect once, for `edge-face check`. Returns a sentence; raises EdgeFaceError with the reason."""
    # Its own client id: the broker would end the connection of a daemon that runs meanwhile.
    link = Link(config.mqtt, f"edge-face-{slug(config.node.id)}-check")
    try:
        async with asyncio.timeout(PROBE_S):
            await link.open()
            await link.close()
    except TimeoutError:
        raise EdgeFaceError(f"the {link.where} does not answer", "mqtt") from None
    except LinkLost as error:
        raise EdgeFaceError(str(error), "mqtt") from error
    finally:
        link.abort()
    return f"connected to the {link.where}"


def expiry_s(left_s: float) -> int:
    """The message expiry interval (MQTT 5, 3.3.2.3.3) for an event that has `left_s` left: whole seconds, rounded down.

    Never 0, which Mosquitto takes for "no expiry". So what is sent within its last second may stay with the broker for
    up to a second too long; it was sent in time, and receivers look at `expires_at`, as they must with 3.1.1 anyway.
    """
    return max(1, int(left_s))
