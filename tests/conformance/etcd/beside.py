"""Our store beside the etcds that it is compared with, each with the same number of members."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks import peers
from tests.conformance.etcd.side import FOREIGN, Side, version
from tests.conformance.members import etcdctl_path

NEEDS_CLIENTS = pytest.mark.skipif(
    etcdctl_path() is None or not FOREIGN.is_file(), reason="etcdctl or the foreign client is not here: run make setup"
)
NOTIFY = "watch-progress-notify-interval=2s"
CHEAP_PASSWORDS = "--bcrypt-cost=4"
"""Scenarios are about who may do what; at the cost that is usual they would take a minute for hashes alone."""


@dataclass(frozen=True)
class Beside:
    """The sides of a comparison, all running."""

    etcds: tuple[Side, ...]
    """The newest first."""
    ours: Side

    @property
    def newest(self) -> Side:
        return self.etcds[0]


def references() -> list[peers.Peer]:
    """The etcds to compare with, the newest first: the one that $ETCD names, or what Go builds and Debian has."""
    named = os.environ.get("ETCD")
    newest = None if named else peers.newest()[0]
    found = [peer for peer in (newest, *peers.find(with_newest=False)[0]) if peer and peer.name != "ours"]
    if not found:
        pytest.fail("There is no etcd to compare with: run make setup, or name one with ETCD=/path.")
    return found


def beside(count: int, directory: Path, extra: Sequence[str] = ()) -> Iterator[Beside]:
    """Ours and all etcds, for as long as the caller goes on with it."""
    etcds = references()
    with ExitStack() as stack, ThreadPoolExecutor(len(etcds) + 1) as threads:
        sides = []
        for peer in (*etcds, peers.ours()):
            older = peer.name != "ours" and version(peer) < (3, 6)
            flags = [f"--experimental-{NOTIFY}" if older else f"--{NOTIFY}", CHEAP_PASSWORDS, *extra]
            sides.append(Side(peer, directory / peer.name.replace(" ", "-"), count, flags))
            stack.callback(sides[-1].close)
        list(threads.map(Side.start, sides))
        yield Beside(tuple(sides[:-1]), sides[-1])
