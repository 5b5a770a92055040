"""The initial members out of a domain's SRV records (`--discovery-srv`), put into the server's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

REMEDY = (
    "Name a domain whose SRV records _etcd-server._tcp (or _etcd-server-ssl._tcp) have this member's "
    "--initial-advertise-peer-urls, or list the members with --initial-cluster in place of --discovery-srv."
)
IDENTITY = "member.json"
"""A data directory with this file is a member's already (`kvstore/src/member/home.rs`)."""


def discover(config: dict[str, Any]) -> list[str]:
    """Take the flags of discovery out of the settings, and put in what they find; returns warnings.

    As with etcd nobody is asked for a founder that has data; who joins may still need to know whom to ask. Raises
    DiscoveryError when a member without data finds nobody, or not itself.
    """
    domain, service = config.pop("discovery_srv"), config.pop("discovery_srv_name")
    if not domain:
        return []
    if not config["peer_tls"]["trusted_ca_file"]:
        # No authority of their own vouches for members: their certificates are for the domain, as with etcd.
        config["peer_tls"]["server_name"] = domain
    is_member = (Path(config["data_dir"] or f"{config['name']}.etcd") / IDENTITY).exists()
    if is_member and config["initial_cluster_state"] == "new":
        return []
    from kvstore.discovery import DiscoveryError, founders, own_urls

    name, urls = config["name"], config["initial_advertise_peer_urls"]
    try:
        found, warnings = founders(domain, service, name, urls)
    except DiscoveryError as error:
        if not is_member:
            raise DiscoveryError(f"{error}. {REMEDY}") from None
        return [str(error)]
    config["initial_cluster"] = found
    config["initial_advertise_peer_urls"] = own_urls(found, name, urls)
    return warnings
