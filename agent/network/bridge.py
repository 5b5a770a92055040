"""The bridge `dock0`, the link of each container to it, and the packet rules. Blocking: call it in a thread."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Iterable
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pyroute2
from pyroute2.netlink.exceptions import NetlinkError

from agent.network.addresses import Addresses, choose_subnet
from agent.network.nft import Nft
from agent.network.published import Ports, base_rules, change
from agent.units.docker_line import PublishedPort

BRIDGE = "dock0"
TABLE = "fleet_containers"
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
            taken = []
            for route in links.get_routes(family=2):
                if (target := route.get_attr("RTA_DST")) is not None:
                    taken.append(IPv4Network(f"{target}/{route['dst_len']}", strict=False))
            subnet = choose_subnet(taken)
            links.link("add", ifname=BRIDGE, kind="bridge")
            found = links.link_lookup(ifname=BRIDGE)
            links.addr("add", index=found[0], address=str(subnet.network_address + 1), prefixlen=subnet.prefixlen)
        else:
            address = next(iter(links.get_addr(family=2, index=found[0])))
            text = f"{address.get_attr('IFA_ADDRESS')}/{address['prefixlen']}"
            subnet = IPv4Network(text, strict=False)
        links.link("set", index=found[0], state="up")
        for name in ("ip_forward", f"conf/{BRIDGE}/route_localnet"):
            Path(f"/proc/sys/net/ipv4/{name}").write_text("1")
        return subnet

    def join(self, pid: int, container: str, address: str, ports: Iterable[PublishedPort]) -> None:
        """Give the network namespace of a process its eth0, and publish its ports."""
        addresses = self.prepare()
        outer = f"veth{container[:8]}"
        with _links() as links:
            bridge = links.link_lookup(ifname=BRIDGE)[0]
            links.link("add", ifname=outer, kind="veth", peer={"ifname": "eth0", "net_ns_pid": pid})
            index = links.link_lookup(ifname=outer)[0]
            links.link("set", index=index, master=bridge, state="up")
            with contextlib.suppress(NetlinkError):
                links.link("set", index=index, kind="bridge_slave", brport_mode=1)
        _inside(pid, lambda: _configure(address, addresses))
        self.publish(address, ports)

    def publish(self, address: str, ports: Iterable[PublishedPort]) -> None:
        """Send the host's ports on to an address."""
        self.prepare()
        if (text := change(TABLE, "add", address, ports)) and self._nft is not None:
            self._nft.run(text)

    def leave(self, address: str, ports: Iterable[PublishedPort]) -> None:
        """Take back what `join` gave; the link went with its namespace."""
        if self.addresses is None or self._nft is None:
            return
        kept = tuple(ports)
        if text := change(TABLE, "delete", address, kept):
            self._nft.run(text)
        self.ports.free(kept)
        self.addresses.free(address)


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


def _configure(address: str, addresses: Addresses) -> None:
    with _links() as links:
        links.link("set", index=1, state="up")
        index = links.link_lookup(ifname="eth0")[0]
        links.addr("add", index=index, address=address, prefixlen=addresses.subnet.prefixlen)
        links.link("set", index=index, state="up")
        links.route("add", dst="default", gateway=str(addresses.gateway))


def _inside(pid: int, work: Callable[[], None]) -> None:
    """Do something in another network namespace, on a thread that ends with it."""
    failure: list[Exception] = []

    def run() -> None:
        try:
            handle = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _libc.setns(handle, _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), f"can't enter the network namespace of process {pid}")
            finally:
                os.close(handle)
            work()
        except (OSError, NetlinkError, IndexError) as error:
            failure.append(error)

    thread = threading.Thread(target=run, name=f"netns of {pid}")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
