"""The store on this machine: a member of our own, or a gateway to the voters; which, and with which flags."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from fleetd.config import CLIENT_PORT, Config
from fleetd.forming import ClusterRecord

HEARTBEATS_PER_ELECTION = 6
STORE_FOLDER = "store"
IDENTITY_FILE = "member.json"
"""The store writes it last, when it has founded or joined."""


def member_argv(config: Config, machine_id: str, record: ClusterRecord, overrides: Path) -> list[str]:
    """The command of this machine's store member; how it begins is in `member_env`."""
    argv = [
        sys.executable,
        "-m",
        "kvstore",
        "--name",
        machine_id,
        "--data-dir",
        str(config.data_dir / STORE_FOLDER),
        "--listen-client-urls",
        ",".join(config.client_urls),
        "--advertise-client-urls",
        config.client_urls[0],
        "--listen-peer-urls",
        config.peer_url,
        "--initial-advertise-peer-urls",
        config.peer_url,
        "--election-timeout",
        str(config.store_election_ms),
        "--heartbeat-interval",
        str(max(config.store_election_ms // HEARTBEATS_PER_ELECTION, 10)),
        "--snapshot-count",
        str(config.store_snapshot_count),
        "--peer-url-overrides",
        str(overrides),
        # So that its log can be read side by side with fleetd's.
        "--log-format",
        "console",
    ]
    return [*argv, "--insecure"] if config.insecure else argv


def member_env(record: ClusterRecord) -> dict[str, str]:
    """How a member with an empty data directory begins. Not among the flags: a running member is adopted by those.

    Once a founder is a member it has `existing` here too: an empty disk is a lost one, and founds no second cluster.
    """
    return {
        "ETCD_INITIAL_CLUSTER": record.initial_cluster,
        "ETCD_INITIAL_CLUSTER_STATE": record.initial_state,
        "ETCD_INITIAL_CLUSTER_TOKEN": record.cluster_id,
    }


def lost(config: Config, record: ClusterRecord) -> bool:
    """Tell whether this machine was a member whose part of the store is gone: it must join anew, under a new id."""
    mine = record.phase == "member" and record.role == "voter" and not config.kv_endpoints
    return mine and not (config.data_dir / STORE_FOLDER / IDENTITY_FILE).exists()


def gateway_argv(config: Config, endpoints: Sequence[str]) -> list[str]:
    """The command of the forwarder that stands in for a member, so that applications find the store everywhere."""
    hosts = ",".join(url.removeprefix("http://") for url in endpoints)
    listen = f"127.0.0.1:{CLIENT_PORT}"
    return [sys.executable, "-m", "kvstore", "gateway", "start", "--endpoints", hosts, "--listen-addr", listen]


def endpoints(config: Config, record: ClusterRecord) -> tuple[str, ...]:
    """Where this machine's own store client connects: the local member first."""
    if config.kv_endpoints:
        return config.kv_endpoints
    if record.role == "voter":
        return (config.client_urls[-1], *(url for url in record.store_endpoints if url not in config.client_urls))
    return record.store_endpoints
