"""`kvstore gateway start`: the members' client port on a machine without a member. It forwards TCP connections to the
first endpoint that accepts one, and gives up those of an endpoint that closes them; clients connect again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Sequence

CONNECT_WAIT_S = 0.5
AVOID_S = 2.0
CHUNK_BYTES = 64 * 1024
MAX_CONNECTIONS = 4096


def host_port(text: str) -> tuple[str, int]:
    """Split `http://HOST:PORT` or `HOST:PORT`; IPv6 hosts in brackets. Raises ValueError."""
    bare = text.strip().removeprefix("http://").rstrip("/")
    host, colon, port = bare.rpartition(":")
    if not colon or not port.isdecimal() or "/" in bare or not 0 <= int(port) < 65536:
        raise ValueError(f"{text!r} is not an endpoint: write HOST:PORT or http://HOST:PORT.")
    return host.strip("[]") or "127.0.0.1", int(port)


class Gateway:
    """Connections go to the endpoint that took the last one, while it does."""

    def __init__(self, endpoints: Sequence[tuple[str, int]]) -> None:
        self._endpoints = list(endpoints)
        self._failed: dict[tuple[str, int], float] = {}
        self._open = 0

    async def serve(self, host: str, port: int) -> asyncio.Server:
        """Listen; the caller closes the server."""
        return await asyncio.start_server(self._accepted, host, port, limit=CHUNK_BYTES)

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        now = time.monotonic()
        order = sorted(self._endpoints, key=lambda one: self._failed.get(one, 0.0) + AVOID_S > now)
        for endpoint in order:
            try:
                async with asyncio.timeout(CONNECT_WAIT_S):
                    found = await asyncio.open_connection(*endpoint, limit=CHUNK_BYTES)
            except (OSError, TimeoutError):
                self._failed[endpoint] = time.monotonic()
                continue
            self._failed.pop(endpoint, None)
            self._endpoints.remove(endpoint)
            self._endpoints.insert(0, endpoint)
            return found
        return None

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._open >= MAX_CONNECTIONS:
            writer.close()
            return
        self._open += 1
        far: asyncio.StreamWriter | None = None
        try:
            dialled = await self._dial()
            if dialled is None:
                return
            back, far = dialled
            # An HTTP/2 connection is of no use in one direction only: whichever side ends, both do.
            ways = [asyncio.ensure_future(_pump(reader, far)), asyncio.ensure_future(_pump(back, writer))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            self._open -= 1
            writer.close()
            if far is not None:
                far.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()


async def _run(listen: tuple[str, int], endpoints: Sequence[tuple[str, int]]) -> None:
    server = await Gateway(endpoints).serve(*listen)
    end = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end.set)
    await end.wait()
    server.close()


def main(arguments: Sequence[str]) -> int:
    """`start [--endpoints A,B] [--listen-addr HOST:PORT]`, until SIGTERM. 1 when it can't listen, 2 on bad flags."""
    parser = argparse.ArgumentParser(prog="kvstore gateway", description="Forward a port to the store's members.")
    parser.add_argument("verb", choices=["start"])
    parser.add_argument("--endpoints", default="127.0.0.1:2379", help="members, separated by commas")
    parser.add_argument("--listen-addr", default="127.0.0.1:23790", help="where to listen")
    given = parser.parse_args(list(arguments))
    try:
        listen = host_port(given.listen_addr)
        endpoints = [host_port(one) for one in given.endpoints.split(",") if one.strip()]
    except ValueError as error:
        print(f"kvstore gateway: {error}", file=sys.stderr)
        return 2
    try:
        asyncio.run(_run(listen, endpoints))
    except OSError as error:
        print(f"kvstore gateway: it can't listen on {given.listen_addr}: {error}", file=sys.stderr)
        return 1
    return 0
