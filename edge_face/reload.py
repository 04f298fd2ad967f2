"""Taking over a changed configuration while running: what differs, and one reload at a time."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_face.clock import Clock
from edge_face.config import heading
from edge_face.errors import ConfigError, EdgeFaceError
from edge_face.settings import REPEATABLE, SECTIONS, Config, limits_of

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """From one configuration to the next."""

    config: Config
    """What is in force afterwards: the new one, but for what only a start can change."""
    changed: tuple[str, ...]
    """Keys that are applied, each as `[section] key`."""
    needs_restart: tuple[str, ...]
    """Keys that stay as they are until the next start."""
    added: tuple[str, ...] = ()
    """Cameras."""
    removed: tuple[str, ...] = ()
    restarted: tuple[str, ...] = ()
    """Those whose process has to begin anew; all others notice nothing."""

    def payload(self) -> dict[str, Any]:
        """As the API answers."""
        cameras = {"added": self.added, "removed": self.removed, "restarted": self.restarted}
        return {"changed": self.changed, "needs_restart": self.needs_restart, "cameras": cameras}


def plan(old: Config, new: Config) -> Plan:
    """Compare section by section, key by key."""
    changed: list[str] = []
    needs_restart: list[str] = []
    kept: dict[str, Any] = {}
    for name, kind in SECTIONS.items():
        if name in REPEATABLE:
            continue
        before, after = getattr(old, name), getattr(new, name)
        stays: dict[str, Any] = {}
        for key, (_, limits) in limits_of(kind).items():
            if getattr(before, key) != getattr(after, key):
                (needs_restart if limits.restart else changed).append(f"[{name}] {key}")
                if limits.restart:
                    stays[key] = getattr(before, key)
        kept[name] = dataclasses.replace(after, **stays)
    changed += [*_differences("camera", old.cameras, new.cameras), *_differences("webhook", old.webhooks, new.webhooks)]
    everywhere = dataclasses.replace(old.engine, max_temperature=new.engine.max_temperature) != new.engine
    return Plan(
        dataclasses.replace(new, **kept, demo=old.demo),
        tuple(changed),
        tuple(needs_restart),
        added=tuple(id for id in new.cameras if id not in old.cameras),
        removed=tuple(id for id in old.cameras if id not in new.cameras),
        restarted=tuple(
            id for id, camera in new.cameras.items() if id in old.cameras and (everywhere or camera != old.cameras[id])
        ),
    )


def _differences(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Of sections that may stand several times; one that comes or goes is told as a whole."""
    found = []
    for id in dict.fromkeys((*old, *new)):
        if id not in old or id not in new:
            found.append(heading(name, id))
        else:
            keys = limits_of(type(new[id]))
            found += [f"{heading(name, id)} {key}" for key in keys if getattr(old[id], key) != getattr(new[id], key)]
    return found


@dataclass(slots=True)
class Outcome:
    """Of the last reload, for the status."""

    problems: tuple[str, ...] = ()
    """Why the file was refused; empty while what it says is in force."""
    needs_restart: tuple[str, ...] = ()
    reloaded_at: float | None = None
    """Unix seconds; None: not since the start."""

    def payload(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(slots=True, eq=False)
class Reloader:
    """Asked by a signal, by MQTT and by the API; works in one task, so that two never meet."""

    load: Callable[[], Config]
    """Read and check the file anew. Raises ConfigError."""
    apply: Callable[[Config], Awaitable[Plan]]
    """Raises EdgeFaceError while nothing is changed yet."""
    clock: Clock
    on_change: Callable[[bool], None] = lambda _busy: None
    """Told when a reload begins and when it is over."""
    outcome: Outcome = field(default_factory=Outcome)
    _asked: asyncio.Queue[tuple[str, asyncio.Future[Plan]]] = field(default_factory=asyncio.Queue)

    def soon(self, by: str) -> None:
        """For whoever waits for no answer; the log says what became of it. `by`: whose wish it is."""
        answer = self._ask(by)
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())  # it is logged already

    async def now(self, by: str) -> Plan:
        """Raises ConfigError with all problems, or another EdgeFaceError; then the old configuration is in force."""
        return await self._ask(by)

    def _ask(self, by: str) -> asyncio.Future[Plan]:
        answer: asyncio.Future[Plan] = asyncio.get_running_loop().create_future()
        self._asked.put_nowait((by, answer))
        return answer

    async def run(self) -> None:
        """For ever."""
        while True:
            by, answer = await self._asked.get()
            self.on_change(True)
            try:
                done = await self._reload(by)
            except EdgeFaceError as error:
                if not answer.cancelled():
                    answer.set_exception(error)
            else:
                if not answer.cancelled():
                    answer.set_result(done)
            finally:
                self.on_change(False)

    async def _reload(self, by: str) -> Plan:
        try:
            done = await self.apply(await asyncio.to_thread(self.load))
        except EdgeFaceError as error:
            problems = error.problems if isinstance(error, ConfigError) else (error.message,)
            self.outcome.problems = tuple(problems)
            for problem in problems:
                _log.error("the configuration is not reloaded (asked by %s): %s", by, problem)
            raise
        self.outcome = Outcome((), done.needs_restart, self.clock.wall())
        _log.warning(
            "the configuration is reloaded (asked by %s): %s", by, ", ".join(done.changed) or "nothing changed"
        )
        if done.needs_restart:
            _log.warning("a restart is needed for %s", ", ".join(done.needs_restart))
        return done
