"""Published ports: which host ports are chosen, and the packet rules for them as text; `bridge` acts."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import replace

from agent.units.docker_options import PublishedPort

FIRST, LAST = 49153, 65535


class PortError(Exception):
    """A port is taken; the text says which."""


class Ports:
    """The host ports that containers of this machine have."""

    def __init__(self) -> None:
        self._taken: set[tuple[int, str]] = set()
        self._next = FIRST

    def take(self, wanted: Iterable[PublishedPort]) -> tuple[PublishedPort, ...]:
        """Choose for all, or for none and raise."""
        done: list[PublishedPort] = []
        try:
            for port in wanted:
                done.append(self._one(port))
        except PortError:
            self.free(done)
            raise
        return tuple(done)

    def free(self, ports: Iterable[PublishedPort]) -> None:
        """Give ports back."""
        for port in ports:
            self._taken.discard((port.host_port, port.protocol))

    def keep(self, ports: Iterable[PublishedPort]) -> None:
        """Note those of a container that was adopted."""
        self._taken.update((port.host_port, port.protocol) for port in ports)

    def _one(self, port: PublishedPort) -> PublishedPort:
        if port.host_port:
            if not self._free(port, port.host_port):
                where = f"{port.host_ip or '0.0.0.0'}:{port.host_port}"
                raise PortError(f"Bind for {where} failed: port is already allocated")
            self._taken.add((port.host_port, port.protocol))
            return port
        for _ in range(FIRST, LAST + 1):
            number = self._next
            self._next = self._next + 1 if self._next < LAST else FIRST
            if self._free(port, number):
                self._taken.add((number, port.protocol))
                return replace(port, host_port=number)
        raise PortError(f"all ports from {FIRST} to {LAST} are allocated")

    def _free(self, port: PublishedPort, number: int) -> bool:
        if (number, port.protocol) in self._taken:
            return False
        kind = socket.SOCK_DGRAM if port.protocol == "udp" else socket.SOCK_STREAM
        with socket.socket(socket.AF_INET, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((port.host_ip or "0.0.0.0", number))
            except OSError:
                return False
        return True


def no_rules(table: str) -> str:
    """The table is gone, if there is one."""
    return f"table ip {table} {{}}\ndelete table ip {table}\n"


def base_rules(table: str, bridge: str, subnet: str) -> str:
    """The table with masquerade, hairpin and maps of published ports; anew each time."""
    maps = "".join(f" map {kind}_to {{ type inet_service : ipv4_addr . inet_service; }}\n" for kind in ("tcp", "udp"))
    sends = "".join(
        f"  fib daddr type local {kind} dport @{kind}_here dnat ip to {kind} dport map @{kind}_to\n"
        for kind in ("tcp", "udp")
    )
    sets = "".join(f" set {kind}_here {{ type inet_service; }}\n" for kind in ("tcp", "udp"))
    return (
        f"{no_rules(table)}table ip {table} {{\n{maps}{sets}"
        f" chain pre {{ type nat hook prerouting priority dstnat; policy accept;\n{sends} }}\n"
        f" chain out {{ type nat hook output priority -100; policy accept;\n{sends} }}\n"
        f" chain post {{ type nat hook postrouting priority srcnat; policy accept;\n"
        f'  ip saddr {subnet} oifname != "{bridge}" masquerade\n'
        f'  ip saddr 127.0.0.0/8 oifname "{bridge}" masquerade\n'
        f"  ip saddr {subnet} ip daddr {subnet} ct status dnat masquerade\n }}\n}}\n"
    )


def publish(table: str, address: str, ports: Iterable[PublishedPort]) -> str:
    """Send a container's ports on to it; what is so already stays so."""
    return "".join(
        f"add element ip {table} {port.protocol}_here {{ {port.host_port} }}\n"
        f"add element ip {table} {port.protocol}_to {{ {port.host_port} : {address} . {port.container_port} }}\n"
        for port in ports
    )


def withdraw(table: str, address: str, ports: Iterable[PublishedPort]) -> str:
    """Take a container's ports away. They are added before: nft refuses to delete what is not there, as after a start
    that failed before it published them, or when the table was made anew since."""
    kept = tuple(ports)
    return publish(table, address, kept) + "".join(
        f"delete element ip {table} {port.protocol}_{name} {{ {port.host_port} }}\n"
        for port in kept
        for name in ("here", "to")
    )
