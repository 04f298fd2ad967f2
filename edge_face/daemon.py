"""Wires every part by constructor, starts them in order, stops them in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import platform
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from edge_face import __version__, logs, outputs, reload, retention, upkeep
from edge_face.backends import Backends
from edge_face.board import Board
from edge_face.bus import Bus, Wants
from edge_face.cameras import Cameras
from edge_face.caretaker import open_store
from edge_face.clock import Clock, SystemClock, wall_clock_synchronised
from edge_face.config import effective_text, mask_url
from edge_face.database import StoreThread
from edge_face.errors import StoreError
from edge_face.events import Event, FrameView, InView, State
from edge_face.fleet import Fleet
from edge_face.gallery import Gallery
from edge_face.gate import Gate
from edge_face.heat import Heat
from edge_face.journal import Journal
from edge_face.outbox import Backlog
from edge_face.people import People
from edge_face.publish import Publisher, Sink
from edge_face.reload import Plan, Reloader
from edge_face.remote import RemoteMatcher
from edge_face.roster import StoreRoster
from edge_face.service import Service
from edge_face.settings import Config
from edge_face.slugs import slug
from edge_face.store import Store
from edge_face.supervisor import PhotoProcess
from edge_face.terminal import Terminal
from edge_face.tokens import Tokens, token_file
from edge_face.unknowns import Unknowns
from edge_face.web.app import Health, Services
from edge_face.web.server import Server

_log = logging.getLogger(__name__)

TICK_S = 0.2
CLOCK_POLL_S = 2.0
BACKLOG_POLL_S = 5.0
ANNOUNCEMENTS = 1000
"""Decisions that may wait for the database; more than that means that it hangs, and the oldest have expired."""


class Daemon:
    """The whole of edge-face. `run` returns when it was asked to stop, or when every clip has ended."""

    def __init__(
        self,
        config: Config,
        terminal: Terminal,
        clock: Clock | None = None,
        prepare: Callable[[People], Awaitable[None]] | None = None,
        *,
        load: Callable[[], Config],
        service: Service | None = None,
        synchronised: Callable[[], bool] = wall_clock_synchronised,
    ) -> None:
        """`prepare` runs before the cameras start: the demo enrols its person there. `load`: read the configuration
        anew, for a reload; raises ConfigError. `service`: the unit around this process.
        `synchronised`: whether the wall clock is.
        """
        self._config = config
        self._prepare = prepare
        self._terminal = terminal
        self._clock = clock or SystemClock()
        self._stop = asyncio.Event()
        self._views: Bus[FrameView] = Bus()
        self._announcements: asyncio.Queue[tuple[Event, float]] = asyncio.Queue(ANNOUNCEMENTS)
        self._synchronised = synchronised
        self._clock_synced = synchronised()
        self._started_at = self._clock.monotonic()
        self._backlog: dict[str, Backlog] = {}
        self._dropped: dict[str, dict[str, int]] = {}
        self._heat = Heat(self._clock, lambda: self._config.engine.max_temperature)
        self._backends = Backends.remembered()
        self._fleet = Fleet(lambda: self._config, self._new_gate, self._clock, self._backends)
        self._wants = Wants(self._fleet.want_jpeg)
        self._service = service
        self.reloader = Reloader(load, self._apply, self._clock, service.reloading if service else lambda _busy: None)
        self._remote: asyncio.Task[None] | None = None
        self._break_off: Callable[[], None] = lambda: None
        """Deliveries of people who may not pass any more; set when there is a publisher."""

    def stop(self) -> None:
        self._stop.set()

    async def run(self) -> None:
        """Once. Raises EdgeFaceError when a part cannot be started; a part that dies later ends the process as well."""
        config = self._config
        async with AsyncExitStack() as stack:
            thread = StoreThread()
            stack.push_async_callback(thread.close)
            store, self._caretaker = await thread.run(open_store, config, self._clock, stack)
            stack.push_async_callback(thread.run, store.close)
            journal = await thread.run(Journal, store, self._clock)
            stack.push_async_callback(thread.run, journal.recover)
            self._unknowns = Unknowns(store, thread, config, self._clock, lambda: self._clock_synced)
            stack.push_async_callback(self._unknowns.flush)
            self._roster = StoreRoster(store, thread, self._use_gallery)
            for camera in config.cameras:
                self._fleet.add(camera)
            await self._roster.gallery()
            self._remember(config.cameras, await thread.run(store.recent_passes, self._remembered_s()))

            cameras = Cameras(
                self._fleet.gates, self._fleet.processes, self._views, store, thread, self._clock, self._on_state
            )

            if not config.storage.keep_faces:
                await upkeep.forget_thumbnails(store, thread)
            photos = self._photos = PhotoProcess(
                config.engine, config.log.level, backends=self._backends, thumbnails=config.storage.keep_faces
            )
            stack.push_async_callback(photos.close)
            self._board = Board(
                Path(config.storage.path),
                lambda: (
                    {f"camera:{id}": process.pid for id, process in self._fleet.processes.items()}
                    | {"photos": photos.pid}
                ),
            )
            people = self._people = People(photos, self._roster, config.decision, self._date)
            if self._prepare:
                await self._prepare(people)

            self._store, self._thread, self._camera_control = store, thread, cameras
            self._publisher = Publisher(journal, thread, self._sinks(), self._clock)
            self._break_off = self._publisher.people_changed
            cameras.restore(config.cameras, await cameras.paused())

            tokens = Tokens(store, self._clock)
            admin = await upkeep.admin_token(tokens, thread, config.storage)
            server = Server(
                config,
                Services(
                    people=people,
                    unknowns=self._unknowns,
                    store=store,
                    thread=thread,
                    tokens=tokens,
                    views=self._views,
                    cameras=cameras,
                    health=self.health,
                    status=self.status,
                    pseudonym_key=await upkeep.pseudonym_key(store, thread),
                    on_viewers=self._wants.of("web"),
                    in_view=self.in_view,
                    clock=self._clock,
                    config=lambda: self._config,
                    reload=self.reloader.now,
                ),
            )
            await server.start()
            stack.push_async_callback(server.stop)
            self._terminal.welcome(
                url=server.url,
                token=admin,
                token_file=str(token_file(Path(config.storage.path))),
                topic=f"edge-face/{slug(config.node.id)}/+/event",
                broker=config.mqtt.host,
                cameras={camera: mask_url(options.source) for camera, options in config.cameras.items()},
            )
            upkeep.keep_heap()
            await self._work(store, journal, thread, tokens, cameras)

    async def _work(
        self, store: Store, journal: Journal, thread: StoreThread, tokens: Tokens, cameras: Cameras
    ) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            services = [
                group.create_task(_endless(name, service), name=name)
                for name, service in (
                    ("publisher", self._publisher.run()),
                    ("roster", self._roster.watch()),
                    ("announcements", self._announce_all()),
                    ("tick", self._tick()),
                    ("clock", self._watch_clock(store, thread)),
                    ("backlog", self._watch_backlog(store, journal, thread)),
                    ("board", self._board.watch()),
                    ("heat", self._heat.watch(lambda: self._board.vitals.temperature_c, self._fleet.slow_down)),
                    ("tokens", upkeep.make_admin_token(tokens, thread, self._config.storage)),
                    ("retention", self._keep_events(store, thread)),
                    ("pauses", cameras.watch()),
                    ("unknowns", self._unknowns.run()),
                    ("caretaker", self._caretaker.run()),
                    ("reload", self.reloader.run()),
                )
            ]
            self._ask_remote()
            if self._service:
                told = _endless("service", self._service.run(self._fleet.pulse))
                services.append(group.create_task(told, name="service"))
            watching = group.create_task(self._fleet.run(), name="cameras")
            stopped = group.create_task(self._stop.wait(), name="stop")
            await asyncio.wait((watching, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not stopped.done():
                _log.info("every clip has ended")
                await self._announcements.join()
                await self._publisher.drain(2 * self._config.decision.event_ttl + 5)
            if self._service:
                self._service.stopping()
            self._views.close()
            for task in (*services, watching, stopped, *([self._remote] if self._remote else [])):
                task.cancel()

    def _ask_remote(self) -> None:
        """Start what `[remote]` asks for."""
        remote = self._config.remote
        if remote.match_url:
            csv = outputs.attendance_file(self._config)
            matcher = RemoteMatcher(remote, csv, self._views, self._wants.of("remote"), self._clock)
            self._remote = self._group.create_task(_endless("remote", matcher.run()), name="remote")

    def _sinks(self) -> list[Sink]:
        return outputs.build(self._config, self._clock, self._camera_control, self.status, self.reloader.soon)

    async def _apply(self, new: Config) -> Plan:
        """Take over a changed configuration. Raises StoreError, and has changed nothing then."""
        old, plan = self._config, reload.plan(self._config, new)
        paused = await self._camera_control.paused()
        passes = await self._thread.run(self._store.recent_passes, self._remembered_s())

        self._config = config = plan.config
        logs.use_level(config.log.level)
        if (config.decision, config.stream, config.log) != (old.decision, old.stream, old.log):
            self._fleet.tune()
            self._people.use(config.decision)
            self._unknowns.use(config.decision)
        for camera in plan.added:
            self._fleet.add(camera)
            self._fleet.gates[camera].use_gallery(self._roster.current)
        self._remember(plan.added, passes)
        self._camera_control.restore(plan.added, paused)
        await self._fleet.change(plan.removed, plan.restarted, plan.added)
        await self._publisher.use(self._sinks(), outputs.unchanged(old, config))
        for camera in plan.removed:
            self._publisher.forget_camera(camera)
        if (config.engine, config.log) != (old.engine, old.log):
            await self._photos.use(config.engine, config.log.level)
        if (config.remote, config.attendance) != (old.remote, old.attendance):
            if self._remote:
                self._remote.cancel()
                await asyncio.wait([self._remote])
                self._wants.of("remote")(False)
            self._remote = None
            self._ask_remote()
        try:
            await self._thread.run(self._store.note_configuration, effective_text(config))
        except StoreError as error:
            _log.error("the audit lacks a change of the configuration until the next start: %s", error)
        return plan

    def _remember(self, cameras: Collection[str], passes: Iterable[tuple[str, str, float]]) -> None:
        """Who passed there not long ago."""
        now = self._clock.monotonic()
        for camera, person_id, passed_at in passes:
            if camera in cameras:
                self._fleet.gates[camera].remember(person_id, min(passed_at, now))

    def _date(self) -> float | None:
        """Unix seconds; None while nobody knows what time it is."""
        return self._clock.wall() if self._clock_synced else None

    def _remembered_s(self) -> float:
        """How long a PASS matters for the next one."""
        return max(self._config.decision.cooldown, self._config.decision.presence_timeout)

    def health(self) -> Health:
        """`failed` means that no camera can make a decision."""
        states = [process.status.state for process in self._fleet.processes.values()]
        working = sum(state == "ok" for state in states)
        healthy = working == len(states) and self._publisher.healthy and self._caretaker.healthy
        return Health(
            "failed" if not working else "ok" if healthy else "degraded",
            "synced" if self._clock_synced else "unsynced",
        )

    def in_view(self) -> list[InView]:
        """The faces now before the cameras."""
        return [self._unknowns.named(seen) for gate in self._fleet.gates.values() for seen in gate.in_view()]

    def status(self) -> dict[str, Any]:
        now = self._clock.monotonic()
        return {
            "status": self.health().status,
            "clock": "synced" if self._clock_synced else "unsynced",
            "node": self._config.node.id,
            "version": __version__,
            "python": platform.python_version(),
            "uptime_s": round(now - self._started_at, 1),
            "people": len(self._roster.current),
            "faces": len(self._roster.current.faces),
            "cameras": self._fleet.payload(),
            "config": self.reloader.outcome.payload(),
            "storage": self._publisher.storage.payload() | self._caretaker.payload(),
            "unknowns": self._unknowns.status(),
            "board": self._board.vitals.payload(),
            "heat": self._heat.payload(),
            "sinks": {
                sink: {**status, "dropped": self._dropped.get(sink, {})}
                for sink, status in self._publisher.status().items()
            },
            "queues": {
                target: {"count": backlog.count, "oldest_s": round(backlog.age_s, 1)}
                for target, backlog in self._backlog.items()
            },
        }

    def _new_gate(self, camera: str, on_settled: Callable[[frozenset[int]], None]) -> Gate:
        return Gate(
            self._config.node.id,
            camera,
            self._config.decision,
            self._clock,
            self._views,
            self._announce,
            self._on_state,
            on_settled,
            clock_synced=lambda: self._clock_synced,
            demo=self._config.demo,
            on_judged=self._unknowns.judged,
            on_decision=self._unknowns.decided,
        )

    def _use_gallery(self, gallery: Gallery) -> None:
        for gate in self._fleet.gates.values():
            gate.use_gallery(gallery)
        self._unknowns.use_gallery(gallery)
        self._break_off()

    def _on_state(self, change: State) -> None:
        self._publisher.state(change)

    def _announce(self, event: Event, deadline: float) -> None:
        if self._announcements.full():
            lost, _ = self._announcements.get_nowait()
            self._announcements.task_done()
            _log.error("the database hangs: the event %s was lost", lost.id)
        self._announcements.put_nowait((event, deadline))

    async def _announce_all(self) -> None:
        while True:
            event, deadline = await self._announcements.get()
            try:
                self._terminal.event(await self._publisher.publish(event, deadline))
            finally:
                self._announcements.task_done()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            for gate in self._fleet.gates.values():
                gate.tick()

    async def _watch_clock(self, store: Store, thread: StoreThread) -> None:
        while True:
            synced = self._synchronised()
            if synced != self._clock_synced:
                _log.warning("the clock is %s", "synchronised" if synced else "no longer synchronised")
                self._clock_synced = synced
                if synced:
                    with contextlib.suppress(StoreError):  # then before the next time that old events are deleted
                        await thread.run(store.date_events)
            await asyncio.sleep(CLOCK_POLL_S)

    async def _watch_backlog(self, store: Store, journal: Journal, thread: StoreThread) -> None:
        """For status and metrics, which must not wait for the database."""
        while True:
            with contextlib.suppress(StoreError):  # whoever needs the database more logs it
                self._backlog = await thread.run(store.backlog)
                self._dropped = await thread.run(journal.dropped)
            await asyncio.sleep(BACKLOG_POLL_S)

    async def _keep_events(self, store: Store, thread: StoreThread) -> None:
        options = self._config.storage
        unknowns = [(lambda: self._config.storage.unknowns_days, self._unknowns.purge)] if options.keep_unknowns else []
        # Asked anew, not what was known some seconds ago: the date may be wrong since.
        await retention.keep(
            store, thread, self._clock, lambda: self._config.storage.retention, self._synchronised, *unknowns
        )


async def _endless(name: str, service: Coroutine[Any, Any, None]) -> None:
    """A part that stops by itself has a defect, and nobody would notice: end the process loudly."""
    await service
    raise RuntimeError(f"the part {name!r} ended by itself")
