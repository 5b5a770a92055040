"""Ports for servers that are about to start, one after the other and in several processes at once."""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path

LOWEST = 10_000
RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_given: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on now, none of which this process was given before.

    They lie below those that the kernel gives to outgoing connections (ip(7), `ip_local_port_range`): one of these
    could be taken by anybody's connection before the server has begun to listen.
    """
    highest = int(RANGE.read_text().split()[0])
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(LOWEST, highest)
        if port not in _given and _is_free(port):
            _given.add(port)
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False


def free_port() -> int:
    """One such port."""
    return free_ports(1)[0]
