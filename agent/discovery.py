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


class Discovery:
    """Announces this machine and keeps the set of addresses seen; `changed` is called after each new one."""

    def __init__(self, machine_id: str, address: str, port: int, changed: Callable[[], None]) -> None:
        self._machine_id = machine_id
        self._address = address
        self._port = port
        self._changed = changed
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._resolving: set[asyncio.Task[None]] = set()
        self.addresses: dict[str, str] = {}
        """Service name -> host:port."""

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
            self.addresses.pop(name, None)
            return
        task = asyncio.get_running_loop().create_task(self._resolve(zeroconf, service_type, name))
        self._resolving.add(task)
        task.add_done_callback(self._resolving.discard)

    async def _resolve(self, zeroconf: Zeroconf, service_type: str, name: str) -> None:
        info = AsyncServiceInfo(service_type, name)
        if not await info.async_request(zeroconf, RESOLVE_TIMEOUT_MS):
            return
        for host in info.parsed_addresses():
            if host == self._address:
                continue
            address = f"[{host}]:{info.port}" if ":" in host else f"{host}:{info.port}"
            if self.addresses.get(name) != address and len(self.addresses) < MAX_ADDRESSES:
                self.addresses[name] = address
                self._changed()

    async def stop(self) -> None:
        """Withdraw the announcement."""
        for task in list(self._resolving):
            task.cancel()
        if self._browser is not None:
            await self._browser.async_cancel()
        if self._zeroconf is not None:
            await self._zeroconf.async_close()
