"""One child process and the socket to it: start it, hear it, end it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import socket
import sys
from typing import Any

from edge_face import messages, threads
from edge_face.backends import Backends
from edge_face.errors import WorkerError
from edge_face.messages import CameraJob, DrawJob, Failed, FromChild, PhotoJob, Ready, ToChild, Trying
from edge_face.vision.models import thread_count

START_S = 90.0
"""A child may take this long to load its models on the slowest board."""
_END_S = 5.0
"""A child that closed its socket has this long to end."""
_CHUNK = 256 * 1024


class ChildDied(WorkerError):
    """`exit_code` is negative for a signal, None when it is silent; `backend` is what it was loading then."""

    def __init__(self, message: str, exit_code: int | None, backend: str = "") -> None:
        super().__init__(f"{message} while it tried the backend {backend}" if backend else message)
        self.exit_code = exit_code
        self.backend = backend


class Child:
    """One child process and the socket to it. An async context manager: at its end the process is gone."""

    def __init__(self, process: asyncio.subprocess.Process, reader: Any, writer: asyncio.StreamWriter) -> None:
        self.process = process
        self._reader: asyncio.StreamReader = reader
        self._writer = writer

    @classmethod
    async def start(cls, job: CameraJob | PhotoJob | DrawJob) -> Child:
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "edge_face.drawing" if isinstance(job, DrawJob) else "edge_face.worker",
                str(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                env=os.environ | threads.blas(1 if isinstance(job, DrawJob) else thread_count(job.engine)),
                start_new_session=True,  # Ctrl-C is the parent's to handle
            )
        ours.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        child = cls(process, reader, writer)
        child.send(job)
        return child

    async def __aenter__(self) -> Child:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def ended(self) -> bool:
        return self.process.returncode is not None or self._reader.at_eof()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    def send(self, message: ToChild) -> None:
        self._writer.write(messages.pack(message))

    async def send_bytes(self, *parts: bytes) -> None:
        """Many bytes after a message, piece by piece, so that the event loop is never held up by copying them.

        Never raises: who waits for the answer hears that the child is gone.
        """
        with contextlib.suppress(ConnectionError):
            for data in parts:
                for start in range(0, len(data), _CHUNK):
                    self._writer.write(memoryview(data)[start : start + _CHUNK])
                    await self._writer.drain()

    async def receive(self, timeout_s: float) -> FromChild:
        """The next message. Raises WorkerError when the child died, talks nonsense or is silent for `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                message: FromChild = await messages.read(self._reader)
        except TimeoutError:
            raise ChildDied(f"no sign of life for {timeout_s:.0f} s", None) from None
        except (asyncio.IncompleteReadError, ConnectionError):
            raise await self._death() from None
        except ValueError as error:
            raise WorkerError(f"sent nonsense: {error}") from None
        if isinstance(message, Failed):
            raise WorkerError(message.message)
        return message

    async def _death(self) -> ChildDied:
        """Why the socket is closed."""
        try:
            async with asyncio.timeout(_END_S):
                code = await self.process.wait()
        except TimeoutError:
            return ChildDied("no longer listens", None)
        return ChildDied(f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}", code)

    async def ready(self) -> Ready:
        """Until the models are loaded. Raises WorkerError; ChildDied names the backend that was being tried."""
        trying = ""
        while True:
            try:
                message = await self.receive(START_S)
            except ChildDied as error:
                raise ChildDied(str(error), error.exit_code, trying) from None
            if isinstance(message, Trying):
                trying = message.backend
            elif isinstance(message, Ready):
                return message


async def started(job: CameraJob | PhotoJob, backends: Backends) -> tuple[Child, Ready]:
    """A child whose models are loaded. One that a backend killed is at once started again without it."""
    while True:
        child = await Child.start(dataclasses.replace(job, skip_backends=backends.skip))
        try:
            ready = await child.ready()
        except BaseException as error:
            await child.close()
            if (
                isinstance(error, ChildDied)
                and job.engine.backend == "auto"
                and backends.died(error.backend, error.exit_code)
            ):
                continue
            raise
        backends.tell(ready.backend, ready.refused)
        return child, ready
