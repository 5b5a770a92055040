"""What tests of recipes share: clients, sessions, and a wire that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from kvstore.client import Client, prefix_end
from kvstore.recipes import Session
from tests.unit.kvstore.members import Cluster
from tests.unit.kvstore.recipes.proxy import Proxy

PATIENCE_S = 60
TTL_S = 20

SHORT_TTL_S = 3
"""For sessions that a test lets end: what ended is noticed at the next renewal, after a third of it."""

Opener = Callable[..., Awaitable[Session]]


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[Client]:
    """Of a store that is empty."""
    async with Client(cluster.endpoints, timeout=PATIENCE_S) as made:
        await made.delete(b"\0", range_end=b"\0")
        yield made


@pytest.fixture
async def opened(client: Client) -> AsyncIterator[Opener]:
    """What opens sessions, each on a lease of its own; they are closed after the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def open_one(ttl: int = TTL_S) -> Session:
            return await stack.enter_async_context(Session(client, ttl=ttl))

        yield open_one


@pytest.fixture
async def session(opened: Opener) -> Session:
    return await opened()


@pytest.fixture
async def wire(cluster: Cluster) -> AsyncIterator[Proxy]:
    """A wire to the first member."""
    async with Proxy(cluster.endpoints[0]) as proxy:
        yield proxy


@pytest.fixture
async def wired_client(cluster: Cluster, wire: Proxy) -> AsyncIterator[Client]:
    """Speaks to the first member by the wire, and to the same one directly when that fails."""
    async with Client([wire.endpoint, cluster.endpoints[0]], timeout=PATIENCE_S) as made:
        yield made


@pytest.fixture
async def wired(wired_client: Client) -> AsyncIterator[Session]:
    async with Session(wired_client, ttl=TTL_S) as session:
        yield session


def pauses() -> Iterator[float]:
    """Seconds after which something is cancelled: none at first, then a little more each time.

    They grow by more and more, so that they are soon long enough where each step takes long.
    """
    yield 0.0
    for step in itertools.count(1):
        yield max(step * 0.0001, 0.003 * 1.1 ** (step - 30))


async def finished(session: Session) -> None:
    """Wait until nothing of a session is under way: what was cancelled is finished all the same."""
    async with asyncio.timeout(PATIENCE_S):
        while session._working:
            await asyncio.sleep(0.005)


async def keys(client: Client, prefix: bytes = b"") -> list[bytes]:
    """The keys that there are now."""
    found = await client.get(prefix or b"\0", range_end=prefix_end(prefix), keys_only=True)
    return [kv.key for kv in found.kvs]
