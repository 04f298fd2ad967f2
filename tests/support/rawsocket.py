"""A WebSocket client that may break every rule of RFC 6455."""

from __future__ import annotations

import asyncio
import base64
import os

TEXT, BINARY, CLOSE, PING, PONG, CONTINUED = 1, 2, 8, 9, 10, 0


def frame(
    data: bytes, opcode: int, *, last: bool = True, masked: bool = True, reserved: int = 0, says: int | None = None
) -> bytes:
    """`says`: the length that it declares, if it is not the real one. The mask is zero, so data goes as it is."""
    length = len(data) if says is None else says
    size = bytes([length]) if length < 126 else b"\x7e" + length.to_bytes(2, "big") if length < 1 << 16 else b""
    size = size or b"\x7f" + length.to_bytes(8, "big")
    first = bytes([last << 7 | reserved << 4 | opcode, size[0] | masked << 7])
    return first + size[1:] + (bytes(4) if masked else b"") + data


class RawSocket:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @staticmethod
    async def open(port: int, path: str, token: str) -> RawSocket:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
        key = base64.b64encode(os.urandom(16)).decode()
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {token}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        return RawSocket(reader, writer)

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def receive(self) -> tuple[int, bytes]:
        """Opcode and data of one frame; CLOSE without data when the connection has ended."""
        try:
            first, size = await self._reader.readexactly(2)
            if size > 125:
                size = int.from_bytes(await self._reader.readexactly(2 if size == 126 else 8), "big")
            return first & 15, await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            return CLOSE, b""

    async def answer(self) -> tuple[int, bytes]:
        """The next frame that is neither a ping nor a pong."""
        while (received := await self.receive())[0] in (PING, PONG):
            pass
        return received

    def end(self) -> None:
        self._writer.transport.abort()
