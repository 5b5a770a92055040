"""Settings: precedence, and what wrong ones say."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleetd.config import ConfigError, load


def test_flags_beat_environment_beats_file(tmp_path: Path) -> None:
    file = tmp_path / "fleetd.toml"
    file.write_text('cluster-name = "file"\nvoters = 5\nbootstrap-expect = 2\n[metadata]\ndisk = "ssd"\n')
    config, _ = load(
        ["--config", str(file), "--bootstrap-expect", "4", "--voters", "7"],
        {"FLEETD_CLUSTER_NAME": "env", "FLEETD_BOOTSTRAP_EXPECT": "3", "UNRELATED": "x"},
    )
    assert (config.cluster_name, config.voters, config.bootstrap_expect) == ("env", 7, 4)
    assert config.metadata == {"disk": "ssd"}


def test_no_flags_is_a_cluster_of_one_on_loopback() -> None:
    config, _ = load([], {})
    assert (config.bootstrap_expect, config.node_address) == (1, "127.0.0.1:7480")
    assert config.client_urls == ("http://127.0.0.1:2379",)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--bootstrap-expect", "0"], "--bootstrap-expect: Input should be greater than or equal to 1"),
        (["--voters", "4"], "--voters: a store has 3, 5 or 7 voters"),
        (["--listen-address", "nowhere"], "--listen-address: 'nowhere' does not appear to be an IPv4 or IPv6 address"),
        (["--listen-address", "0.0.0.0"], "--listen-address: name one address of this machine"),
        (["--listen-address", "fd00::1"], "name an IPv4 address"),
        (["--listen-address", "10.0.0.1"], "which wants TLS"),
        (["--cluster-name", "-x"], "--cluster-name: use 1 to 63 letters"),
        (["--metadata", "ssd"], "--metadata: metadata 'ssd' is not key=value"),
    ],
)
def test_wrong_flags_name_themselves(argv: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load([f"{argv[0]}={argv[1]}"], {})
    assert message in str(error.value)


def test_wrong_files_name_the_place(tmp_path: Path) -> None:
    file = tmp_path / "fleetd.toml"
    file.write_text("cluster_nam = 1\n")
    with pytest.raises(ConfigError, match="unknown setting 'cluster_nam'"):
        load(["--config", str(file)], {})
    file.write_text("voters = = 3\n")
    with pytest.raises(ConfigError, match="line 1"):
        load(["--config", str(file)], {})
    with pytest.raises(ConfigError, match="No such file"):
        load(["--config", str(tmp_path / "missing")], {})


def test_a_mistyped_variable_is_named(caplog: pytest.LogCaptureFixture) -> None:
    load([], {"FLEETD_BOOTSTRAP_EXPCT": "3"})
    assert "FLEETD_BOOTSTRAP_EXPCT is no setting" in caplog.text


def test_insecure_allows_other_addresses() -> None:
    config, _ = load(["--listen-address", "10.0.0.1", "--insecure", "--peers", "10.0.0.2,10.0.0.3"], {})
    assert config.peers == ("10.0.0.2", "10.0.0.3")
    assert config.client_urls == ("http://10.0.0.1:2379", "http://127.0.0.1:2379")
