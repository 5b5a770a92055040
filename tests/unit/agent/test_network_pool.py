"""The pool of networks made ahead, when making one is slow or fails. The kernel's part alone is played."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator
from ipaddress import IPv4Network

import pytest

from agent.network import bridge
from agent.network.addresses import AddressError, Addresses
from agent.network.bridge import Bridge
from agent.network.pool import SIZE, Pool

TIMEOUT_S = 60.0


class Kernel(Bridge):
    """A bridge whose links are made, or fail, as the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses = Addresses(IPv4Network("172.17.0.0/16"))
        self.made: list[str] = []
        self.error: Exception | None = None
        self.slow = threading.Event()
        self.slow.set()

    def prepare(self) -> Addresses:
        assert self.addresses is not None
        return self.addresses

    def make(self, address: str) -> int:
        error = self.error
        self.made.append(address)
        if error is not None:
            raise error
        assert self.slow.wait(TIMEOUT_S)
        return os.open(os.devnull, os.O_RDONLY)


@contextlib.asynccontextmanager
async def running(pool: Pool) -> AsyncIterator[None]:
    """The pool at work; an error of its own shows."""
    async with asyncio.timeout(TIMEOUT_S), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(pool.run())
        yield
        task.cancel()


async def until_made(kernel: Kernel, number: int) -> None:
    while len(kernel.made) < number:
        await asyncio.sleep(0.01)


async def test_what_nobody_foresaw_ends_nothing_and_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    kernel = Kernel()
    pool = Pool(kernel)
    async with running(pool):
        (await pool.take()).close()
        kernel.error = KeyError("IFLA_INFO_KIND")
        await until_made(kernel, 2)
        kernel.error = None
        (await pool.take()).close()
        await until_made(kernel, 3 + SIZE)
    assert "IFLA_INFO_KIND" in caplog.text and len(kernel.made) == 3 + SIZE


async def test_an_address_that_is_being_made_ahead_is_given_to_who_asks_for_it() -> None:
    kernel = Kernel()
    pool = Pool(kernel)
    async with running(pool):
        (await pool.take()).close()
        kernel.slow.clear()
        await until_made(kernel, 2)
        asking = asyncio.create_task(pool.take(kernel.made[1]))
        await asyncio.wait([asking], timeout=0.1)
        kernel.slow.set()
        ready = await asking
        ready.close()
        assert ready.address == kernel.made[1]
        with pytest.raises(AddressError):
            await pool.take(ready.address)


def test_what_fails_in_a_namespace_is_told_to_who_asked() -> None:
    def work() -> None:
        raise KeyError("IFLA_INFO_KIND")

    with pytest.raises(KeyError, match="IFLA_INFO_KIND"):
        bridge._on_a_thread(lambda: None, work)
