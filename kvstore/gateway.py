"""`kvstore gateway start`: the members' client port on a machine without a member. It forwards TCP connections to a
member that is well, and asks that member while it has connections (`GET /health`): one that was stopped, lost its
power or its leader loses them, so that clients connect again, to another.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import ssl
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kvstore import discovery

CONNECT_WAIT_S = 0.5
AVOID_S = 5.0
"""How long a member that was not well comes last."""
PROBE_S = 1.0
"""Between two questions to a member, and how long an answer is waited for."""
MISSES = 2
"""Questions without a good answer after which a member loses its connections."""
CHUNK_BYTES = 64 * 1024
MAX_CONNECTIONS = 4096

Endpoint = tuple[str, int]


def host_port(text: str) -> tuple[str, int]:
    """Split `http://HOST:PORT` or `HOST:PORT`; IPv6 hosts in brackets. Raises ValueError."""
    bare = text.strip().removeprefix("http://").rstrip("/")
    host, colon, port = bare.rpartition(":")
    if not colon or not port.isdecimal() or "/" in bare or not 0 <= int(port) < 65536:
        raise ValueError(f"{text!r} is not an endpoint: write HOST:PORT or http://HOST:PORT.")
    return host.strip("[]") or "127.0.0.1", int(port)


def member(text: str) -> tuple[Endpoint, bool]:
    """A member's address, which may also begin with `https://`, and whether it does. Raises ValueError."""
    secure = text.strip().startswith("https://")
    return host_port(text.strip().removeprefix("https://") if secure else text), secure


def trusting(ca: Path | None, cert: Path | None, key: Path | None, *, credulous: bool = True) -> ssl.SSLContext:
    """What members are asked with. Without an authority the system's are believed, or when `credulous` anybody: the
    bytes that are forwarded are between clients and members, who look for themselves. Raises OSError."""
    made = ssl.create_default_context(cafile=ca)
    if ca is None and credulous:
        made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    if cert is not None:
        made.load_cert_chain(cert, key)
    return made


async def is_well(endpoint: Endpoint, tls: ssl.SSLContext | None = None) -> bool:
    """Whether a member answers in time that it has a leader."""
    try:
        async with asyncio.timeout(PROBE_S):
            reader, writer = await asyncio.open_connection(*endpoint, ssl=tls)
            try:
                writer.write(b"GET /health HTTP/1.1\r\nHost: store\r\nConnection: close\r\n\r\n")
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    except ssl.SSLError as error:
        # It wants a certificate that this gateway has not got: it serves, which is all that can be known.
        return error.reason == "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    except (OSError, TimeoutError):
        return False


class Gateway:
    """Connections go to the member that took the last one, while it is well."""

    def __init__(self, endpoints: Sequence[Endpoint], secure: Mapping[Endpoint, ssl.SSLContext] | None = None) -> None:
        """`secure` says with what those are asked that speak TLS."""
        self._endpoints = list(endpoints)
        self._secure = secure or {}
        self._failed: dict[Endpoint, float] = {}
        self._tunnels: dict[Endpoint, set[asyncio.Task[None]]] = {}
        self._probes: dict[Endpoint, asyncio.Task[None]] = {}
        self._well_at: dict[Endpoint, float] = {}
        self._open = 0

    async def serve(self, host: str, port: int) -> asyncio.Server:
        """Listen; the caller closes the server."""
        return await asyncio.start_server(self._accepted, host, port, limit=CHUNK_BYTES)

    async def _dial(self) -> tuple[Endpoint, asyncio.StreamReader, asyncio.StreamWriter] | None:
        """Connect to a member that is well; when none is, to one that accepts at all."""
        now = time.monotonic()
        order = sorted(self._endpoints, key=lambda one: self._failed.get(one, -AVOID_S) + AVOID_S > now)
        for strict in (True, False):
            for endpoint in order:
                if strict and not await self._trusted(endpoint):
                    continue
                try:
                    async with asyncio.timeout(CONNECT_WAIT_S):
                        found = await asyncio.open_connection(*endpoint, limit=CHUNK_BYTES)
                except (OSError, TimeoutError):
                    self._failed[endpoint] = time.monotonic()
                    continue
                if endpoint in self._endpoints:
                    self._endpoints.remove(endpoint)
                    self._endpoints.insert(0, endpoint)
                return endpoint, *found
        return None

    async def _trusted(self, endpoint: Endpoint) -> bool:
        """Whether a member was well a moment ago, or says so now."""
        if time.monotonic() - self._well_at.get(endpoint, -PROBE_S) < PROBE_S:
            return True
        return self._noted(endpoint, await is_well(endpoint, self._secure.get(endpoint)))

    def _noted(self, endpoint: Endpoint, well: bool) -> bool:
        if well:
            self._well_at[endpoint] = time.monotonic()
            self._failed.pop(endpoint, None)
        else:
            self._well_at.pop(endpoint, None)
            self._failed[endpoint] = time.monotonic()
        return well

    async def _probe(self, endpoint: Endpoint) -> None:
        """Ask a member while it has connections, and end them when it is not well."""
        misses = 0
        while self._tunnels.get(endpoint):
            await asyncio.sleep(PROBE_S)
            well = await is_well(endpoint, self._secure.get(endpoint))
            misses = 0 if self._noted(endpoint, well) else misses + 1
            if misses >= MISSES:
                for tunnel in list(self._tunnels.get(endpoint, ())):
                    tunnel.cancel()
        self._probes.pop(endpoint, None)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._open >= MAX_CONNECTIONS:
            writer.close()
            return
        self._open += 1
        try:
            dialled = await self._dial()
            if dialled is not None:
                endpoint, back, far = dialled
                tunnel = asyncio.create_task(_tunnel(reader, writer, back, far))
                self._tunnels.setdefault(endpoint, set()).add(tunnel)
                if endpoint not in self._probes:
                    self._probes[endpoint] = asyncio.create_task(self._probe(endpoint))
                try:
                    await asyncio.wait([tunnel])
                finally:
                    tunnel.cancel()
                    self._tunnels[endpoint].discard(tunnel)
            else:
                writer.close()
        finally:
            self._open -= 1


async def _tunnel(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: asyncio.StreamReader, far: asyncio.StreamWriter
) -> None:
    """Both ways, until one ends: an HTTP/2 connection is of no use in one direction only."""
    ways = [asyncio.ensure_future(_pump(reader, far)), asyncio.ensure_future(_pump(back, writer))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        # The member is silent: what it has not taken yet would keep a plain close waiting.
        far.transport.abort()
        raise
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        writer.close()
        far.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()


async def _run(listen: Endpoint, endpoints: Sequence[Endpoint], secure: Mapping[Endpoint, ssl.SSLContext]) -> None:
    server = await Gateway(endpoints, secure).serve(*listen)
    end = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end.set)
    await end.wait()
    server.close()


def discovered(domain: str, service: str, insecure: bool) -> list[str]:
    """Members that a domain's records name; those without TLS only when `insecure`. Raises ValueError."""
    found = discovery.endpoints(domain, service)
    for one in found:
        if not insecure and not one.startswith("https://"):
            print(f'kvstore gateway: ignoring discovered insecure endpoint "{one}"', file=sys.stderr)
    return [one for one in found if insecure or one.startswith("https://")]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kvstore gateway",
        description="Forward a port to the store's members.",
        epilog="example: kvstore gateway start --endpoints 10.0.0.1:2379,10.0.0.2:2379 --listen-addr 127.0.0.1:2379",
    )
    file: dict[str, Any] = {"type": Path, "metavar": "FILE"}
    add = parser.add_argument
    add("verb", choices=["start"])
    add("--endpoints", default="127.0.0.1:2379", help="members, separated by commas")
    add("--listen-addr", default="127.0.0.1:23790", help="where to listen")
    add("--trusted-ca-file", help="authorities of https:// members, which are asked how they are", **file)
    add("--cert-file", help="certificate for asking members that want one (ours, not etcd's)", **file)
    add("--key-file", help="its key", **file)
    add("--discovery-srv", default="", metavar="DOMAIN", help="whose SRV records name the members")
    add("--discovery-srv-name", default="", metavar="NAME", help="of the service there")
    add("--insecure-discovery", action="store_true", help="take members without TLS from there")
    return parser


def main(arguments: Sequence[str]) -> int:
    """`start [--endpoints A,B] [--listen-addr HOST:PORT]`, until SIGTERM. 1 when it can't listen, 2 on bad flags."""
    given = _parser().parse_args(list(arguments))
    domain, insecure = given.discovery_srv, given.insecure_discovery
    try:
        listen = host_port(given.listen_addr)
        named = discovered(domain, given.discovery_srv_name, insecure) if domain else given.endpoints.split(",")
        members = [member(one) for one in named if one.strip()]
        if not members:
            raise ValueError("--endpoints names no member." if not domain else f"{domain} names no member with TLS.")
        credulous = insecure or not domain
        tls = trusting(given.trusted_ca_file, given.cert_file, given.key_file, credulous=credulous)
    except OSError as error:
        given_files = [given.trusted_ca_file, given.cert_file, given.key_file]
        files = ", ".join(str(path) for path in given_files if path is not None)
        print(f"kvstore gateway: {files}: {os.strerror(error.errno) if error.errno else error}", file=sys.stderr)
        return 2
    except ValueError as error:
        print(f"kvstore gateway: {error}", file=sys.stderr)
        return 2
    endpoints = [endpoint for endpoint, _ in members]
    secure = {endpoint: tls for endpoint, speaks_tls in members if speaks_tls}
    try:
        asyncio.run(_run(listen, endpoints, secure))
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        print(f"kvstore gateway: it can't listen on {given.listen_addr}: {why}", file=sys.stderr)
        return 1
    return 0
