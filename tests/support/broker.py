"""A real Mosquitto on a free port, to be started, stopped, frozen and thawed, and a subscriber to look at it with."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiomqtt

from edge_face.settings import Mqtt


class Broker:
    """Keeps its port over a restart; forgets retained messages, as one without persistence does."""

    def __init__(self, folder: Path, *lines: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._config = folder / f"mosquitto-{self.port}.conf"
        # user: started by root it would become a user who may not read the test's folder.
        own = ["user root", f"listener {self.port} 127.0.0.1", "persistence false", "log_dest none"]
        self._config.write_text("\n".join([*own, *(lines or ("allow_anonymous true",))]) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    def options(self, **more: Any) -> Mqtt:
        return replace(Mqtt(host="127.0.0.1", port=self.port), **more)

    def start(self) -> Broker:
        self._process = subprocess.Popen(
            ["/usr/sbin/mosquitto", "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 5
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 0.2).close()
                return self
            except OSError:
                assert self._process.poll() is None, "mosquitto refuses its configuration"
                assert time.monotonic() < deadline, "mosquitto does not listen"
                time.sleep(0.01)

    def stop(self) -> None:
        if self._process is not None:
            self.thaw()
            self._process.terminate()
            self._process.wait(5)
            self._process = None

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(5)
        self._process = None

    def freeze(self) -> None:
        """As a hung machine: the kernel still accepts connections and data, and nobody answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


class Watcher:
    """All that a subscriber receives, with the MQTT 5 properties."""

    def __init__(self) -> None:
        self.messages: list[aiomqtt.Message] = []

    def texts(self, leaf: str) -> list[str]:
        """Payloads on topics that end so, in the order of arrival."""
        return [bytes(m.payload).decode() for m in self.messages if str(m.topic).endswith(leaf)]

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.texts("/event")]


@asynccontextmanager
async def watching(broker: Broker, topic: str = "#", **more: Any) -> AsyncIterator[Watcher]:
    watcher = Watcher()
    async with aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5, **more) as client:
        await client.subscribe(topic, qos=1)

        async def collect() -> None:
            async for message in client.messages:
                watcher.messages.append(message)

        task = asyncio.create_task(collect())
        try:
            yield watcher
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


Arrivals = list[tuple[float, dict[str, Any]]]
"""Events, each with the Unix time at which it came."""


@asynccontextmanager
async def arriving(broker: Broker) -> AsyncIterator[Arrivals]:
    """Events as a subscriber gets them, who connects again whenever the broker was away."""
    found: Arrivals = []
    task = asyncio.create_task(_collect(broker, found))
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _collect(broker: Broker, found: Arrivals) -> None:
    while True:
        with suppress(aiomqtt.MqttError):
            async with aiomqtt.Client("127.0.0.1", broker.port) as client:
                await client.subscribe("#", qos=1)
                async for message in client.messages:
                    if str(message.topic).endswith("/event"):
                        found.append((time.time(), json.loads(bytes(message.payload))))
        await asyncio.sleep(0.1)


async def until(condition: Callable[[], Any], limit_s: float = 5.0) -> None:
    """Wait until it holds; the test fails when it does not in time."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


class Certificates:
    """An authority, a server certificate for `localhost` and a client certificate, made with openssl."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ca = self._path("ca.pem")
        own_key = _new_key(self._path("ca.key"))
        _openssl("req", "-x509", *own_key, "-subj", "/CN=test authority", "-days", "2", "-out", self.ca)
        self.cert, self.key = self._issue("localhost", "subjectAltName=DNS:localhost")
        self.client_cert, self.client_key = self._issue("gate", "extendedKeyUsage=clientAuth")

    def _issue(self, name: str, extension: str) -> tuple[str, str]:
        cert, key, request, extensions = (self._path(f"{name}.{kind}") for kind in ("pem", "key", "csr", "ext"))
        _openssl("req", *_new_key(key), "-subj", f"/CN={name}", "-out", request)
        Path(extensions).write_text(extension + "\n")
        signer = ("-CA", self.ca, "-CAkey", self._path("ca.key"), "-CAcreateserial")
        _openssl("x509", "-req", "-in", request, *signer, "-days", "2", "-extfile", extensions, "-out", cert)
        return cert, key

    def _path(self, name: str) -> str:
        return str(self._folder / name)


def _new_key(path: str) -> tuple[str, ...]:
    return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", path)


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
