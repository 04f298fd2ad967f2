"""Many viewers of `/ws/face-stream` that cost little: one thread discards what comes, and counts messages."""

from __future__ import annotations

import base64
import os
import selectors
import socket
import threading
import time
from dataclasses import dataclass

_HEADER = 10
"""A frame of a server's has 2 bytes, and up to 8 more for its length."""


@dataclass
class _Viewer:
    line: socket.socket
    head: bytes = b""
    """The part of a frame's header that is there."""
    body: int = 0
    """Bytes of its body that are still to come."""
    messages: int = 0


class Viewers:
    """A context manager; `open` adds viewers, and the end closes all."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._token = token
        self._selector = selectors.DefaultSelector()
        self._viewers: list[_Viewer] = []
        self._stalled: list[socket.socket] = []
        self._over = False
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Viewers:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._over = True
        self._thread.join()
        self._selector.close()
        for line in (*(viewer.line for viewer in self._viewers), *self._stalled):
            line.close()

    def open(self, count: int) -> None:
        for _ in range(count):
            viewer = _Viewer(self._connect())
            viewer.line.setblocking(False)
            self._viewers.append(viewer)
            self._selector.register(viewer.line, selectors.EVENT_READ, viewer)

    def open_stalled(self) -> None:
        """One that never reads; the daemon cuts it off after a while."""
        self._stalled.append(self._connect(keeps=4096))

    def messages(self) -> list[int]:
        """How many each has got; the stalled ones are not among them."""
        return [viewer.messages for viewer in self._viewers]

    def _connect(self, keeps: int = 0) -> socket.socket:
        line = socket.socket()
        if keeps:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, keeps)
        line.settimeout(10)
        line.connect(("127.0.0.1", self._port))
        key = base64.b64encode(os.urandom(16)).decode()
        line.sendall(
            f"GET /ws/face-stream HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {self._token}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += (got := line.recv(1))
            assert got, f"the connection ended: {answer!r}"
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        return line

    def _read(self) -> None:
        room = bytearray(1 << 20)
        while not self._over:
            if not self._selector.get_map():
                time.sleep(0.05)
                continue
            for key, _ in self._selector.select(0.05):
                count = key.data.line.recv_into(room)
                if not count:
                    self._selector.unregister(key.fileobj)
                _take(key.data, memoryview(room)[:count])


def _take(viewer: _Viewer, data: memoryview) -> None:
    while data:
        if viewer.body:
            taken = min(viewer.body, len(data))
            viewer.body -= taken
            viewer.messages += not viewer.body
            data = data[taken:]
            continue
        head = viewer.head + bytes(data[: _HEADER - len(viewer.head)])
        short = head[1] & 127 if len(head) > 1 else 0
        length = {126: 4, 127: 10}.get(short, 2)
        if len(head) < length:
            viewer.head = head
            return
        data = data[length - len(viewer.head) :]
        viewer.head = b""
        viewer.body = short if length == 2 else int.from_bytes(head[2:length], "big")
