"""mDNS on loopback: a machine that announces itself anew, as after a power loss, is found where it is now."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator

import pytest
from zeroconf._dns import DNSAddress, DNSPointer, DNSService, DNSText
from zeroconf._protocol.outgoing import DNSOutgoing
from zeroconf.const import (
    _CLASS_IN,
    _CLASS_UNIQUE,
    _FLAGS_AA,
    _FLAGS_QR_RESPONSE,
    _TYPE_A,
    _TYPE_PTR,
    _TYPE_SRV,
    _TYPE_TXT,
)

from agent import discovery
from agent.discovery import SERVICE, Discovery

HERE = "127.0.0.1"
PORT = 7480
TTL_S = 120
GROUP = ("224.0.0.251", 5353)
PATIENCE_S = 60.0
FLUSH_S = 1.1
"""RFC 6762, 10.2: a new answer replaces older ones, but none of the last second."""


class Watcher:
    """A machine that looks for others."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self.news = 0
        self.discovery = Discovery(secrets.token_hex(16), HERE, PORT, self.found, self._changed)

    def _changed(self) -> None:
        self.news += 1

    def of(self, machine: str) -> list[str]:
        """Where a machine may be, the newest place last."""
        return [address for address, name in self.found.items() if name == f"{machine}.{SERVICE}"]

    async def until(self, machine: str, address: str) -> None:
        """Wait until a machine may be at an address."""
        async with asyncio.timeout(PATIENCE_S):
            while f"{address}:{PORT}" not in self.of(machine):
                await asyncio.sleep(0.02)


@pytest.fixture
async def watcher() -> AsyncIterator[Watcher]:
    made = Watcher()
    await made.discovery.start()
    yield made
    await made.discovery.stop()


def announce(machine: str, address: str) -> None:
    """Say once what a machine says when it comes up."""
    name, host, unique = f"{machine}.{SERVICE}", f"{machine}.local.", _CLASS_IN | _CLASS_UNIQUE
    out = DNSOutgoing(_FLAGS_QR_RESPONSE | _FLAGS_AA)
    out.add_answer_at_time(DNSPointer(SERVICE, _TYPE_PTR, _CLASS_IN, TTL_S, name), 0)
    out.add_answer_at_time(DNSService(name, _TYPE_SRV, unique, TTL_S, 0, 0, PORT, host), 0)
    out.add_answer_at_time(DNSText(name, _TYPE_TXT, unique, TTL_S, b"\x03v=1"), 0)
    out.add_answer_at_time(DNSAddress(host, _TYPE_A, unique, TTL_S, socket.inet_aton(address)), 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(HERE))
        for packet in out.packets():
            sender.sendto(packet, GROUP)


async def test_a_machine_that_comes_back_elsewhere_is_found_there(watcher: Watcher) -> None:
    machine = secrets.token_hex(16)
    for last in (2, 3, 4, 5):
        announce(machine, f"127.0.1.{last}")
        await watcher.until(machine, f"127.0.1.{last}")
        assert len(watcher.of(machine)) <= discovery.ADDRESSES_KEPT
        await asyncio.sleep(FLUSH_S)
    assert watcher.news >= 4


async def test_one_that_goes_back_where_it_was_is_not_lost(watcher: Watcher) -> None:
    machine = secrets.token_hex(16)
    for last in (2, 3, 2):
        announce(machine, f"127.0.2.{last}")
        await asyncio.sleep(FLUSH_S)
    await watcher.until(machine, "127.0.2.2")


async def test_two_that_swap_their_addresses_are_both_known(watcher: Watcher) -> None:
    one, two = secrets.token_hex(16), secrets.token_hex(16)
    announce(one, "127.0.3.2")
    announce(two, "127.0.3.3")
    await watcher.until(one, "127.0.3.2")
    await watcher.until(two, "127.0.3.3")
    await asyncio.sleep(FLUSH_S)
    announce(one, "127.0.3.3")
    announce(two, "127.0.3.2")
    await asyncio.sleep(FLUSH_S)
    async with asyncio.timeout(PATIENCE_S):
        while not {f"127.0.3.{last}:{PORT}" for last in (2, 3)} <= watcher.found.keys():
            await asyncio.sleep(0.02)


async def test_no_more_addresses_are_kept_than_may_be(watcher: Watcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "MAX_ADDRESSES", 2)
    machines = [secrets.token_hex(16) for _ in range(4)]
    for at, machine in enumerate(machines):
        announce(machine, f"127.0.4.{at}")
    async with asyncio.timeout(PATIENCE_S):
        while len(watcher.found) < 2:
            await asyncio.sleep(0.02)
    await asyncio.sleep(FLUSH_S)
    assert len(watcher.found) == 2
