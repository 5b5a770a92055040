"""Network namespaces that are ready before a container asks: a link, an address and a route take 10 ms to make.

Nothing of this is on disk. A namespace lives by this process's handle until a container is in it, so what was made
ahead goes when the process does, however it ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import dataclass

from pyroute2.netlink.exceptions import NetlinkError

from agent.network.addresses import AddressError
from agent.network.bridge import Bridge
from agent.network.nft import NftError

SIZE = 4
"""Namespaces that wait, once a first container has asked for one."""
PAUSE_S = 0.1
"""From a start to the making of a new one: the start has the processors until then."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ready:
    """A namespace with its address on the bridge."""

    address: str
    handle: int

    @property
    def path(self) -> str:
        """Where a runtime finds it while the handle is open."""
        return f"/proc/{os.getpid()}/fd/{self.handle}"

    def close(self) -> None:
        """Let it go: it lives on by the processes in it, if there are any."""
        os.close(self.handle)


class Pool:
    """The namespaces made ahead on one bridge. One event loop's."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._ready: list[Ready] = []
        self._taken = asyncio.Event()
        self._making = asyncio.Lock()

    async def take(self, wanted: str = "") -> Ready:
        """One that is ready, else a new one; with this address, if one is wanted. The caller closes it.

        Raises AddressError, NftError, NetlinkError, OSError.
        """
        addresses = await asyncio.to_thread(self._bridge.prepare)
        self._taken.set()
        if wanted:
            async with self._making:
                pass  # the one being made ahead may have this address, and is ready then
        for ready in self._ready:
            if wanted in ("", ready.address):
                self._ready.remove(ready)
                return ready
        return await self._make(addresses.take(wanted))

    async def run(self) -> None:
        """Make new ones for those that were taken, until cancelled."""
        try:
            while True:
                await self._taken.wait()
                await asyncio.sleep(PAUSE_S)
                self._taken.clear()
                try:
                    while len(self._ready) < SIZE:
                        addresses = await asyncio.to_thread(self._bridge.prepare)
                        async with self._making:
                            self._ready.append(await self._make(addresses.take()))
                except (AddressError, NftError, NetlinkError, OSError) as error:
                    log.warning("no network namespace can be made ahead: %s", error)
                except Exception:  # of whatever kind: containers start without one too
                    log.exception("no network namespace can be made ahead")
        finally:
            while self._ready:
                ready = self._ready.pop()
                ready.close()
                self._bridge.leave(ready.address, ())

    async def _make(self, address: str) -> Ready:
        making = asyncio.ensure_future(asyncio.to_thread(self._bridge.make, address))
        try:
            return Ready(address, await asyncio.shield(making))
        except BaseException:
            making.add_done_callback(lambda done: self._undo(address, done))  # a thread can't be cancelled
            raise

    def _undo(self, address: str, done: asyncio.Future[int]) -> None:
        if done.exception() is None:
            os.close(done.result())
        self._bridge.leave(address, ())
