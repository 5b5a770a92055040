"""The bridge `dock0`, the link of each container to it, and the packet rules. Blocking: call it in a thread."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, TypeVar

import pyroute2
from pyroute2.netlink.exceptions import NetlinkError

from agent.network.addresses import Addresses, choose_subnet
from agent.network.nft import Nft
from agent.network.published import Ports, base_rules, no_rules, publish, withdraw
from agent.units.docker_options import PublishedPort

BRIDGE = "dock0"
TABLE = "fleet_containers"
T = TypeVar("T")
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Bridge:
    """The network of one machine's containers; it is set up with the first container."""

    def __init__(self) -> None:
        self.ports = Ports()
        self.addresses: Addresses | None = None
        self._nft: Nft | None = None
        self._lock = threading.Lock()

    def prepare(self) -> Addresses:
        """Have the bridge and its rules; answer the addresses."""
        with self._lock:
            if self.addresses is None:
                with _links() as links:
                    subnet = self._bridge(links)
                self._nft = Nft()
                self._nft.run(base_rules(TABLE, BRIDGE, str(subnet)))
                self.addresses = Addresses(subnet)
            return self.addresses

    def _bridge(self, links: Any) -> IPv4Network:
        if not (found := links.link_lookup(ifname=BRIDGE)):
            links.link("add", ifname=BRIDGE, kind="bridge")
            found = links.link_lookup(ifname=BRIDGE)
        if given := list(links.get_addr(family=2, index=found[0])):
            text = f"{given[0].get_attr('IFA_ADDRESS')}/{given[0]['prefixlen']}"
            subnet = IPv4Network(text, strict=False)
        else:  # new, or of a process that was killed before it gave one
            taken = []
            for route in links.get_routes(family=2):
                if (target := route.get_attr("RTA_DST")) is not None:
                    taken.append(IPv4Network(f"{target}/{route['dst_len']}", strict=False))
            subnet = choose_subnet(taken)
            links.addr("add", index=found[0], address=str(subnet.network_address + 1), prefixlen=subnet.prefixlen)
        links.link("set", index=found[0], state="up")
        for name in ("ip_forward", f"conf/{BRIDGE}/route_localnet"):
            Path(f"/proc/sys/net/ipv4/{name}").write_text("1")
        return subnet

    def make(self, address: str) -> int:
        """Make a network namespace with its eth0 on the bridge; answer a handle, with which it lives or dies until a
        process is in it: what a killed fleetd had made ahead is gone with it."""
        addresses = self.prepare()
        outer = f"veth{secrets.token_hex(4)}"
        handle = _apart(lambda: _furnish(outer, address, addresses))
        try:
            with _links() as links:
                bridge = links.link_lookup(ifname=BRIDGE)[0]
                index = links.link_lookup(ifname=outer)[0]
                links.link("set", index=index, master=bridge, state="up")
                with contextlib.suppress(NetlinkError):
                    links.link("set", index=index, kind="bridge_slave", brport_mode=1)
        except BaseException:
            os.close(handle)
            raise
        return handle

    def publish(self, address: str, ports: Iterable[PublishedPort]) -> None:
        """Send the host's ports on to an address."""
        self.prepare()
        if (text := publish(TABLE, address, ports)) and self._nft is not None:
            self._nft.run(text)

    def leave(self, address: str, ports: Iterable[PublishedPort]) -> None:
        """Take back address and ports, whether they were published or not; the link went with its namespace."""
        kept = tuple(ports)
        try:
            if (text := withdraw(TABLE, address, kept)) and self._nft is not None:
                self._nft.run(text)
        finally:
            self.ports.free(kept)
            if self.addresses is not None:
                self.addresses.free(address)

    def drop_old_rules(self) -> None:
        """Drop what an earlier process left, unless `prepare` did: its ports would go on to addresses of nobody."""
        with self._lock, _links() as links:
            if self.addresses is None and links.link_lookup(ifname=BRIDGE):
                Nft().run(no_rules(TABLE))


def _links() -> Any:
    """A netlink connection; pyroute2 has no types for it."""
    connect: Any = pyroute2
    return connect.IPRoute()


def loopback(pid: int) -> None:
    """Set `lo` up in the network namespace of a process (`--network none`)."""
    _inside(pid, _loopback)


def _loopback() -> None:
    with _links() as links:
        links.link("set", index=1, state="up")


def _furnish(outer: str, address: str, addresses: Addresses) -> int:
    """Inside a new network namespace: give it lo, and an eth0 whose other end is in the namespace of this process."""
    with _links() as links:
        links.link("set", index=1, state="up")
        links.link("add", ifname="eth0", kind="veth", peer={"ifname": outer, "net_ns_pid": os.getpid()})
        index = links.link_lookup(ifname="eth0")[0]
        links.addr("add", index=index, address=address, prefixlen=addresses.subnet.prefixlen)
        links.link("set", index=index, state="up")
        links.route("add", dst="default", gateway=str(addresses.gateway))
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _apart(work: Callable[[], T]) -> T:
    """Do something in a new network namespace, on a thread that ends with it."""

    def enter() -> None:
        if _libc.unshare(_CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "can't make a network namespace")

    return _on_a_thread(enter, work)


def _inside(pid: int, work: Callable[[], T]) -> T:
    """Do something in the network namespace of a process, on a thread that ends with it."""

    def enter() -> None:
        handle = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _libc.setns(handle, _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), f"can't enter the network namespace of process {pid}")
        finally:
            os.close(handle)

    return _on_a_thread(enter, work)


def _on_a_thread(enter: Callable[[], None], work: Callable[[], T]) -> T:
    def run() -> T:
        enter()
        return work()

    with ThreadPoolExecutor(1, "network namespace") as thread:
        return thread.submit(run).result()
