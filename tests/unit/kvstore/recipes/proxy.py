"""A wire between a client and a member that a test can cut, make deaf (answers are lost) or slow (requests arrive
later, when their sender has long given up).
"""

from __future__ import annotations

import asyncio
import contextlib

CHUNK = 1 << 16
PATIENCE_S = 60.0
NEVER = b"\0no client sends this\0"


class Proxy:
    """Use as `async with Proxy(endpoint) as proxy`; a client goes to `proxy.endpoint`."""

    def __init__(self, endpoint: str) -> None:
        self._target = int(endpoint.rpartition(":")[2])
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self._members: list[asyncio.StreamWriter] = []
        self._down = self._deaf = self._holding = False
        self._deaf_at = self._hold_at = NEVER
        self._held: list[tuple[asyncio.StreamWriter, bytes]] = []
        self._answered = 0
        self.endpoint = ""

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.endpoint = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        for writer in (*self._clients, *self._members):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._down:
            writer.transport.abort()
            return
        from_member, to_member = await asyncio.open_connection("127.0.0.1", self._target)
        self._clients.add(writer)
        self._members.append(to_member)
        for work in (self._forth(reader, writer, to_member), self._back(from_member, writer)):
            task = asyncio.create_task(work)
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def _forth(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, member: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                if self._down:
                    return
                self._deaf |= self._deaf_at in data
                self._holding |= self._hold_at in data
                if self._holding:
                    self._held.append((member, data))
                else:
                    member.write(data)

    async def _back(self, member: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await member.read(CHUNK):
                self._answered += 1
                if not self._deaf and not writer.is_closing():
                    writer.write(data)
        writer.transport.abort()

    def deafen(self, word: bytes = b"") -> None:
        """Lose what members answer, from when a client sends a request with these bytes in it."""
        self._deaf_at = word

    def hold(self, word: bytes = b"") -> None:
        """Keep what clients send, from a request with these bytes in it on."""
        self._hold_at = word

    async def holds(self, word: bytes) -> None:
        """Wait until a request with these bytes in it is kept."""
        async with asyncio.timeout(PATIENCE_S):
            while not any(word in data for _, data in self._held):
                await asyncio.sleep(0.005)

    def cut(self) -> None:
        """Break every connection to clients and refuse new ones; those to the member stay."""
        assert self._deaf_at == NEVER or self._deaf, "the request never came by this wire"
        assert self._hold_at == NEVER or self._held, "the request never came by this wire"
        self._down = True
        for writer in self._clients:
            writer.transport.abort()
        self._clients.clear()

    async def deliver(self) -> None:
        """Hand the member what was kept, and wait until it has answered."""
        before = self._answered
        for member, data in self._held:
            member.write(data)
        self._held.clear()
        async with asyncio.timeout(PATIENCE_S):
            while self._answered == before:
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.3)  # for all of the answer

    def mend(self) -> None:
        """Pass everything on again."""
        self._down = self._deaf = self._holding = False
        self._deaf_at = self._hold_at = NEVER
