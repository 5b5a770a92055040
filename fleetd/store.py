"""The store on this machine: a member of our own, or a gateway to the voters; which, and with which flags."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from fleetd.config import CLIENT_PORT, Config
from fleetd.forming import Record

HEARTBEATS_PER_ELECTION = 6


def member_argv(config: Config, machine_id: str, record: Record, overrides: Path) -> list[str]:
    """The command of this machine's store member. Once its data directory exists that decides, not the flags."""
    argv = [
        sys.executable,
        "-m",
        "kvstore",
        "--name",
        machine_id,
        "--data-dir",
        str(config.data_dir / "store"),
        "--listen-client-urls",
        ",".join(config.client_urls),
        "--advertise-client-urls",
        config.client_urls[0],
        "--listen-peer-urls",
        config.peer_url,
        "--initial-advertise-peer-urls",
        config.peer_url,
        "--initial-cluster",
        record.initial_cluster,
        "--initial-cluster-state",
        record.initial_state,
        "--initial-cluster-token",
        record.cluster_id,
        "--election-timeout",
        str(config.store_election_ms),
        "--heartbeat-interval",
        str(max(config.store_election_ms // HEARTBEATS_PER_ELECTION, 10)),
        "--peer-url-overrides",
        str(overrides),
    ]
    return [*argv, "--insecure"] if config.insecure else argv


def gateway_argv(config: Config, endpoints: Sequence[str]) -> list[str]:
    """The command of the forwarder that stands in for a member, so that applications find the store everywhere."""
    hosts = ",".join(url.removeprefix("http://") for url in endpoints)
    listen = f"127.0.0.1:{CLIENT_PORT}"
    return [sys.executable, "-m", "kvstore", "gateway", "start", "--endpoints", hosts, "--listen-addr", listen]


def endpoints(config: Config, record: Record) -> tuple[str, ...]:
    """Where this machine's own store client connects: the local member first."""
    if config.kv_endpoints:
        return config.kv_endpoints
    if record.role == "voter":
        return (config.client_urls[-1], *(url for url in record.store_endpoints if url not in config.client_urls))
    return record.store_endpoints
