"""mDNS: finds the addresses of other machines' node RPC, and nothing else.

What a machine is (its cluster, its id) is asked of it there; nothing in a multicast answer is believed but the address.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable

from zeroconf import IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

SERVICE = "_fleetd._tcp.local."
RESOLVE_TIMEOUT_MS = 3_000
MAX_ADDRESSES = 1_024
ADDRESSES_KEPT = 3
"""Of one name, the newest: a machine that moved may be at any of them, since what it said before it lost its power is
believed for a while, and comes in no certain order. Who is where is asked there."""


class Discovery:
    """Announces this machine and keeps the addresses seen; `changed` is called after each new one."""

    def __init__(
        self, machine_id: str, address: str, port: int, found: dict[str, str], changed: Callable[[], None]
    ) -> None:
        """`found` is kept up to date: host:port -> service name."""
        self._machine_id = machine_id
        self._address = address
        self._port = port
        self._changed = changed
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._resolving: set[asyncio.Task[None]] = set()
        self._found = found

    async def start(self) -> None:
        """Bind to the machine's own address, announce, browse. Raises OSError where multicast is not allowed."""
        version = IPVersion.V4Only if ipaddress.ip_address(self._address).version == 4 else IPVersion.V6Only
        self._zeroconf = AsyncZeroconf(interfaces=[self._address], ip_version=version)
        packed = socket.inet_pton(socket.AF_INET if version is IPVersion.V4Only else socket.AF_INET6, self._address)
        info = AsyncServiceInfo(
            SERVICE,
            f"{self._machine_id}.{SERVICE}",
            addresses=[packed],
            port=self._port,
            properties={"v": "1"},
            server=f"{self._machine_id}.local.",
        )
        await self._zeroconf.async_register_service(info, allow_name_change=True)
        self._browser = AsyncServiceBrowser(self._zeroconf.zeroconf, SERVICE, handlers=[self._seen])

    def _seen(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        if state_change is ServiceStateChange.Removed:
            self._keep(name, 0)
            return
        task = asyncio.get_running_loop().create_task(self._resolve(zeroconf, service_type, name))
        self._resolving.add(task)
        task.add_done_callback(self._resolving.discard)

    async def _resolve(self, zeroconf: Zeroconf, service_type: str, name: str) -> None:
        info = AsyncServiceInfo(service_type, name)
        if not await info.async_request(zeroconf, RESOLVE_TIMEOUT_MS):
            return
        hosts = [host for host in info.parsed_addresses() if host != self._address]
        places = [f"[{host}]:{info.port}" if ":" in host else f"{host}:{info.port}" for host in hosts]
        for older in reversed(places[1:]):  # the newest comes first
            if older not in self._found:  # another may be there by now
                self._note(older, name)
        for newest in places[:1]:
            self._note(newest, name)
        self._keep(name, ADDRESSES_KEPT)

    def _note(self, address: str, name: str) -> None:
        before = self._found.pop(address, None)
        if before is None and len(self._found) >= MAX_ADDRESSES:
            return
        self._found[address] = name
        if before != name:
            self._changed()

    def _keep(self, name: str, count: int) -> None:
        """Forget all but the newest addresses of a name."""
        of_name = [address for address, other in self._found.items() if other == name]
        for address in of_name[: max(0, len(of_name) - count)]:
            del self._found[address]

    async def stop(self) -> None:
        """Withdraw the announcement."""
        for task in list(self._resolving):
            task.cancel()
        if self._browser is not None:
            await self._browser.async_cancel()
        if self._zeroconf is not None:
            await self._zeroconf.async_close()
