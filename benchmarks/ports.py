"""Ports for servers that are about to start, one after the other and in several processes at once."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import random
import socket
import tempfile
from pathlib import Path

LOWEST = 10_000
RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
TAKEN = Path(tempfile.gettempdir()) / f"fleetd-ports-{os.getuid()}"
"""A byte for each port, locked by the process that was given it: fcntl(2) frees it when that process ends."""
_given: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on now, none of which was given to this process before, or to one that lives.

    They lie below those that the kernel gives to outgoing connections (ip(7), `ip_local_port_range`): one of these
    could be taken by anybody's connection before the server has begun to listen.
    """
    highest = int(RANGE.read_text().split()[0])
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(LOWEST, highest)
        if port not in _given and _is_free(port) and _take(port):
            _given.add(port)
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False


def _take(port: int) -> bool:
    """Whether no other process has it; then this one does, also while a server of its own is down."""
    with contextlib.suppress(OSError):
        fcntl.lockf(_taken(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        return True
    return False


@functools.cache
def _taken() -> int:
    return os.open(TAKEN, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def free_port() -> int:
    """One such port."""
    return free_ports(1)[0]
