"""Snapshots in etcd's own format: taken from a member, looked at, made a member's data directory. All of it blocks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from kvstore import _core
from kvstore.model import Login
from kvstore.tls import Tls

T = TypeVar("T")


class BackupError(Exception):
    """It can't be done; the text is a sentence."""


@dataclass(frozen=True)
class Snapshot:
    """What a snapshot's file holds."""

    hash: int
    """CRC-32C of all buckets' names, keys and values, as etcd's client tells it."""
    revision: int
    total_keys: int
    """Records of all buckets, old revisions too, as etcdctl 3.4 counts."""
    total_bytes: int
    """Without the checksum at its end."""


def save(
    endpoint: str,
    path: Path,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
    *,
    tls: Tls | None = None,
    login: Login | None = None,
) -> int:
    """Save one member's state as a file, whole or not at all; returns its bytes.

    `progress` is told bytes come and bytes in all; what it raises ends it. Raises BackupError.
    """
    return _told(lambda: _core.snapshot_save(endpoint, path, progress, tls, login))


def status(path: Path, *, skip_hash_check: bool = False) -> Snapshot:
    """Read a whole snapshot, and so check it. Raises BackupError when it is damaged."""
    return Snapshot(*_told(lambda: _core.snapshot_status(path, skip_hash_check)))


def restore(
    path: Path,
    *,
    name: str = "default",
    data_dir: Path | None = None,
    initial_cluster: Sequence[tuple[str, str]] = (),
    initial_cluster_token: str = "etcd-cluster",
    initial_advertise_peer_urls: Sequence[str] = ("http://localhost:2380",),
    skip_hash_check: bool = False,
) -> Path:
    """Make the data directory of a new member, which founds a cluster with those that were restored likewise.

    Returns the directory (default: `NAME.etcd`). `initial_cluster`: pairs of name and peer URL. Raises BackupError;
    then there is no such directory.
    """
    settings: Mapping[str, object] = {
        "name": name,
        "data_dir": str(data_dir or ""),
        "initial_cluster": list(initial_cluster),
        "initial_cluster_token": initial_cluster_token,
        "initial_advertise_peer_urls": list(initial_advertise_peer_urls),
    }
    return _told(lambda: _core.snapshot_restore(path, json.dumps(settings), skip_hash_check))


def _told(call: Callable[[], T]) -> T:
    try:
        return call()
    except (ValueError, RuntimeError) as error:
        raise BackupError(str(error)) from error
