"""A request's connection, taken over as a raw two-way stream, as Docker's attach has it. The only place that knows
how aiohttp's connections are built.

aiohttp drops what comes after the client's end of input unless the protocol is replaced: here it is, until the end.
"""

from __future__ import annotations

import asyncio
import struct
from types import TracebackType

from aiohttp import web

MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
RAW = "application/vnd.docker.raw-stream"
STREAMS = {"stdin": 0, "stdout": 1, "stderr": 2}


def frame(stream: str, data: bytes) -> bytes:
    """A piece of output as Docker multiplexes it: stream, three zeros, length, bytes."""
    return struct.pack(">BxxxI", STREAMS[stream], len(data)) + data


class Hijacked:
    """The connection, from entering to leaving; then it is closed."""

    def __init__(self, request: web.Request, content_type: str) -> None:
        assert request.transport is not None
        self._protocol = request.protocol
        self._transport = request.transport
        self._upgrade = "upgrade" in request.headers.get("Connection", "").lower()
        self._type = content_type
        loop = asyncio.get_running_loop()
        self.reader = asyncio.StreamReader(loop=loop)
        self._stream = asyncio.StreamReaderProtocol(self.reader, loop=loop)
        self._writer = asyncio.StreamWriter(self._transport, self._stream, self.reader, loop)

    async def __aenter__(self) -> Hijacked:
        self._transport.set_protocol(self._stream)
        self._stream.connection_made(self._transport)
        self._transport.resume_reading()
        head = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp" if self._upgrade else "HTTP/1.1 200 OK"
        await self.write(f"{head}\r\nContent-Type: {self._type}\r\n\r\n".encode())
        return self

    async def write(self, data: bytes) -> None:
        """Send bytes; waits while the client does not read."""
        self._writer.write(data)
        await self._writer.drain()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._transport.set_protocol(self._protocol)
        self._protocol.force_close()
        self._transport.close()
