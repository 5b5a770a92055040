"""Etcd's configuration file becomes settings; each mistake names its line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kvstore.flags import FlagError, settings

FULL = """\
# As etcd's sample, with its empty places.
name: 'm1'
data-dir: /d
wal-dir:
snapshot-count: 7
quota-backend-bytes: 0
listen-client-urls: http://h:3,http://h:4
initial-cluster: "a=http://h:1,b=http://h:2"
initial-cluster-state: 'existing'
strict-reconfig-check: false
cors:
client-transport-security:
  cert-file: /c
  key-file:
  client-cert-auth: true
  auto-tls: no
peer-transport-security:
  cert-file: /p
  allowed-cn: [x, y]
  allowed-hostname:
watch-progress-notify-interval: 5000000000
lease-checkpoint-interval: 1h30m
corrupt-check-time: 0
log-outputs: [stderr]
auto-compaction-mode: revision
auto-compaction-retention: "1000"
cipher-suites: [
  TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
  TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
]
force-new-cluster: true
feature-gates: InitialCorruptCheck=true
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "etcd.yaml"


def test_a_file_says_all_that_flags_can(path: Path) -> None:
    path.write_text(FULL)
    result, warnings = settings([f"--config-file={path}"], {})
    assert not warnings
    assert (result["name"], result["data_dir"], result["snapshot_count"]) == ("m1", "/d", 7)
    assert result["quota_backend_bytes"] == 2 << 30
    assert result["listen_client_urls"] == ["http://h:3", "http://h:4"]
    assert result["initial_cluster"] == [("a", "http://h:1"), ("b", "http://h:2")]
    assert (result["initial_cluster_state"], result["strict_reconfig_check"]) == ("existing", False)
    clients, peers = result["client_tls"], result["peer_tls"]
    assert (clients["cert_file"], clients["key_file"], clients["client_cert_auth"]) == ("/c", "", True)
    assert (clients["auto"], peers["cert_file"], peers["allowed_cns"]) == (False, "/p", ["x", "y"])
    assert result["watch_progress_notify_interval"] == 5_000, "numbers are of nanoseconds"
    assert result["lease_checkpoint_interval"] == 5_400_000
    assert result["corrupt_check_time"] == 0
    assert result["auto_compaction_retention"] == 1000
    assert len(result["cipher_suites"]) == 2
    assert result["force_new_cluster"] is True and result["initial_corrupt_check"] is True
    assert "config_file" not in result


def test_flags_and_variables_beside_it_are_ignored(path: Path) -> None:
    path.write_text("name: m1\n")
    words, environment = ["--name=m2", "--config-file", str(path)], {"ETCD_SNAPSHOT_COUNT": "7", "ETCD_NO_SUCH": "1"}
    result, warnings = settings(words, environment)
    assert (result["name"], result["snapshot_count"]) == ("m1", 10_000)
    assert warnings == [f"--name, ETCD_SNAPSHOT_COUNT ignored: {path} holds all settings"]
    assert settings([], {"ETCD_CONFIG_FILE": str(path)})[0]["name"] == "m1"
    with pytest.raises(FlagError, match="flag provided but not defined"):
        settings(["--colour=red", f"--config-file={path}"], {})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name: m1\ncolour: red\n", ":2: no key 'colour' is known"),
        ("\nclient-transport-security:\n  colour: red\n", ":3: no key 'colour' is known in client-transport-security"),
        ("name: a\nname: b\n", ":2: 'name' stands there twice"),
        ("cert-file: /c\n", ":1: 'cert-file' stands in the section client-transport-security"),
        ("config-file: x\n", ":1: no key 'config-file' is known"),
        ("name: {a: b}\n", ":1: the value of 'name' is neither a word nor a list of words"),
        ("peer-transport-security: 7\n", ":1: these are no keys with values"),
        ("- a\n", ": these are no keys with values"),
        ("name: m1\ndata-dir: [\n", ":3: this is no YAML: "),
        ("name: m1\n\nsnapshot-count: many\n", ":3: snapshot-count: 'many' is not a whole number"),
        ("auto-compaction-retention: x\n", ":1: auto-compaction-retention: 'x' is no duration"),
    ],
)
def test_a_mistake_names_its_line(path: Path, text: str, sentence: str) -> None:
    path.write_text(text)
    with pytest.raises(FlagError) as caught:
        settings([f"--config-file={path}"], {})
    assert f"{path}{sentence}" in str(caught.value)


def test_a_file_that_is_not_there_is_named(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kvstore", "--config-file", str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert f"--config-file {path} can't be read: " in done.stderr and "No such file" in done.stderr


def test_what_changes_nothing_here_is_said(path: Path) -> None:
    path.write_text("enable-pprof: true\nmax-wals: 5\nsocket-options:\n  reuse-port: true\n")
    _, warnings = settings([f"--config-file={path}"], {})
    assert warnings == [
        f"{path}:4: socket-reuse-port has no effect: ports are not shared.",
        f"{path}:1: enable-pprof has no effect: there is no go runtime to look at.",
    ]
