"""Which subnet the bridge has and which address each container. Pure but for what it is told is taken."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

SUBNETS = tuple(IPv4Network(f"172.{second}.0.0/16") for second in range(17, 32))


class AddressError(Exception):
    """No subnet or no address is left."""


def choose_subnet(taken: Iterable[IPv4Network]) -> IPv4Network:
    """The first private subnet that overlaps nothing that is routed here."""
    used = list(taken)
    for subnet in SUBNETS:
        if not any(subnet.overlaps(other) for other in used):
            return subnet
    raise AddressError("Every subnet from 172.17.0.0/16 to 172.31.0.0/16 is taken on this machine.")


class Addresses:
    """The addresses of one subnet; the first is the bridge's own. A freed one is reused last."""

    def __init__(self, subnet: IPv4Network) -> None:
        self.subnet = subnet
        self.gateway = subnet.network_address + 1
        self._taken: set[IPv4Address] = set()
        self._next = 2

    def take(self, wanted: str = "") -> str:
        """Take a free address, or this one."""
        if wanted:
            address = IPv4Address(wanted)
            if address in self._taken or address not in self.subnet or address == self.gateway:
                raise AddressError(f"The address {wanted} is taken, or is not in {self.subnet}.")
            self._taken.add(address)
            return wanted
        room = self.subnet.num_addresses - 3
        for _ in range(room):
            address = self.subnet.network_address + self._next
            self._next = self._next + 1 if self._next < room + 1 else 2
            if address not in self._taken:
                self._taken.add(address)
                return str(address)
        raise AddressError(f"Every address of {self.subnet} is taken.")

    def free(self, address: str) -> None:
        """Give one back."""
        self._taken.discard(IPv4Address(address))
