"""A member's settings with what a domain's records name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.ports import free_port
from kvstore.bootstrap import IDENTITY, discover
from kvstore.discovery import DiscoveryError
from kvstore.flags import FlagError, settings
from tests.unit.kvstore.test_discovery import asking, serving


@pytest.fixture(autouse=True)
def records(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with serving(free_port()) as server:
        asking(monkeypatch, server)
        yield


def flags(directory: Path, *more: str) -> list[str]:
    words = ["--name=m1", f"--data-dir={directory}", "--discovery-srv=example"]
    return [*words, "--initial-advertise-peer-urls=http://127.0.0.1:2380", *more]


def test_the_records_are_the_initial_cluster_and_this_member_is_found_by_its_address(tmp_path: Path) -> None:
    config, _ = settings(flags(tmp_path), {})
    warnings = discover(config)
    assert sorted(config["initial_cluster"]) == [("0", "http://localhost:2381"), ("m1", "http://localhost:2380")]
    assert config["initial_advertise_peer_urls"] == ["http://localhost:2380"]
    assert config["peer_tls"]["server_name"] == "example"
    assert len(warnings) == 1 and warnings[0].startswith("error querying DNS SRV records for _etcd-server-ssl lookup")
    assert "discovery_srv" not in config and "discovery_srv_name" not in config


def test_certificates_are_for_hosts_where_an_authority_is_named(tmp_path: Path) -> None:
    config, _ = settings(flags(tmp_path, "--peer-trusted-ca-file=/ca.pem"), {})
    discover(config)
    assert "server_name" not in config["peer_tls"]


def test_a_scheme_that_this_member_does_not_speak_is_an_error(tmp_path: Path) -> None:
    config, _ = settings(flags(tmp_path, "--discovery-srv-name=east"), {})
    with pytest.raises(
        DiscoveryError, match="for etcd-server-ssl-east has scheme mismatch with expected peer http://127"
    ):
        discover(config)


def test_a_founder_with_data_asks_nobody_and_who_joins_may_go_on_without(tmp_path: Path) -> None:
    (tmp_path / IDENTITY).write_text("{}")
    config, _ = settings(flags(tmp_path, "--discovery-srv=none"), {})
    assert discover(config) == [] and config["initial_cluster"] == []
    config, _ = settings(flags(tmp_path, "--discovery-srv=none", "--initial-cluster-state=existing"), {})
    assert "no such host" in discover(config)[0]
    (tmp_path / IDENTITY).unlink()
    config, _ = settings(flags(tmp_path, "--discovery-srv=none", "--initial-cluster-state=existing"), {})
    with pytest.raises(DiscoveryError, match=r"no such host\. Name a domain .* with --initial-cluster in place of"):
        discover(config)


def test_one_way_to_find_the_members_is_enough(tmp_path: Path) -> None:
    with pytest.raises(FlagError, match="multiple discovery or bootstrap flags are set"):
        settings(flags(tmp_path, "--initial-cluster=m1=http://127.0.0.1:2380"), {})
    config, _ = settings([], {})
    assert discover(config) == [] and "server_name" not in config["peer_tls"]
