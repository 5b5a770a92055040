"""Etcd's flags and variables become settings; each mistake is a sentence that names its place."""

from __future__ import annotations

import pytest

from kvstore.flags import FlagError, settings, usage


def test_a_flag_wins_over_its_variable_and_both_over_the_default() -> None:
    result, warnings = settings(["--name", "m1", "-data-dir=/d"], {"ETCD_NAME": "other", "ETCD_SNAPSHOT_COUNT": "7"})
    assert (result["name"], result["data_dir"], result["snapshot_count"]) == ("m1", "/d", 7)
    assert result["election_timeout"] == 1000
    assert warnings == []


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("10m", 600_000), ("1h30m", 5_400_000), ("1.5s", 1_500), ("300ms", 300), ("2m1s", 121_000)],
)
def test_durations_are_read_as_go_writes_them(text: str, milliseconds: int) -> None:
    result, _ = settings([f"--watch-progress-notify-interval={text}"], {})
    assert result["watch_progress_notify_interval"] == milliseconds


@pytest.mark.parametrize("text", ["10", "", "m", "10 m", "1d", "0s", "-1s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(FlagError, match="invalid value for --watch-progress-notify-interval: '"):
        settings([f"--watch-progress-notify-interval={text}"], {})


@pytest.mark.parametrize(
    ("mode", "text", "amount"),
    [
        ("periodic", "0", 0),
        ("periodic", "72", 72 * 3_600_000),
        ("periodic", "5m", 300_000),
        ("periodic", "1h30m", 5_400_000),
        ("revision", "1000", 1000),
        ("revision", "1h", 3_600_000_000_000),
    ],
)
def test_a_retention_is_of_hours_a_duration_or_revisions(mode: str, text: str, amount: int) -> None:
    for arguments, environment in [
        ([f"--auto-compaction-mode={mode}", f"--auto-compaction-retention={text}"], {}),
        ([], {"ETCD_AUTO_COMPACTION_MODE": mode, "ETCD_AUTO_COMPACTION_RETENTION": text}),
    ]:
        result, _ = settings(arguments, environment)
        assert (result["auto_compaction_mode"], result["auto_compaction_retention"]) == (mode, amount)


@pytest.mark.parametrize("text", ["-1", "a", "1d", "", "99999999999999999999"])
def test_what_is_no_retention_is_refused(text: str) -> None:
    with pytest.raises(FlagError, match="invalid value for --auto-compaction-retention: '"):
        settings([f"--auto-compaction-retention={text}"], {})
    with pytest.raises(FlagError, match="invalid value for ETCD_AUTO_COMPACTION_RETENTION: '"):
        settings([], {"ETCD_AUTO_COMPACTION_RETENTION": text})


def test_feature_gates_are_switched_by_name() -> None:
    result, warnings = settings(
        ["--feature-gates=InitialCorruptCheck=true,CompactHashCheck=true,LeaseCheckpoint=f"], {}
    )
    assert result["initial_corrupt_check"] is True
    assert result["compact_hash_check"] is True and result["compact_hash_check_time"] == 60_000
    assert warnings == []
    assert settings([], {})[0]["initial_corrupt_check"] is settings([], {})[0]["compact_hash_check"] is False
    assert settings(["--feature-gates=PriorityRequest=true"], {})[1] == [
        "--feature-gates=PriorityRequest=true has no effect"
    ]
    assert settings(["--corrupt-check-time=2s"], {})[0]["corrupt_check_time"] == 2000
    assert settings(["--corrupt-check-time=0"], {})[0]["corrupt_check_time"] == 0
    for text, sentence in [("X=true", "unrecognized feature gate: X"), ("CompactHashCheck", "missing bool value for")]:
        with pytest.raises(FlagError, match=f"invalid value for --feature-gates: {sentence}"):
            settings([f"--feature-gates={text}"], {})


def test_names_that_etcd_had_before_are_understood() -> None:
    words = ["--experimental-compact-hash-check-enabled", "--experimental-compact-hash-check-time=5s"]
    result, warnings = settings(words, {"ETCD_EXPERIMENTAL_INITIAL_CORRUPT_CHECK": "true"})
    assert result["compact_hash_check"] is True and result["compact_hash_check_time"] == 5_000
    assert result["initial_corrupt_check"] is True and warnings == []
    result, _ = settings(["--compact-hash-check-time=7s", *words, "--feature-gates=InitialCorruptCheck=true"], {})
    assert result["compact_hash_check_time"] == 7_000 and result["compact_hash_check"] is True
    assert result["initial_corrupt_check"] is True
    with pytest.raises(FlagError, match="invalid value for --experimental-compact-hash-check-enabled: 'x' is neither"):
        settings(["--experimental-compact-hash-check-enabled=x"], {})
    both = ["--feature-gates=CompactHashCheck=false", *words]
    with pytest.raises(FlagError, match="enabled and CompactHashCheck in --feature-gates are one switch"):
        settings(both, {})
    assert "experimental" not in usage()


def test_backups_are_made_where_there_is_a_place() -> None:
    result, _ = settings(["--backup-dir=/b", "--backup-interval=10m"], {"ETCD_BACKUP_KEEP": "3"})
    assert (result["backup_dir"], result["backup_interval"], result["backup_keep"]) == ("/b", 600_000, 3)


def test_limits_of_slow_requests_are_durations() -> None:
    assert settings([], {})[0]["slow"] == {"apply": 100, "unary": 300}
    words = ["--warning-apply-duration=1s", "--experimental-warning-unary-request-duration=2m"]
    assert settings(words, {})[0]["slow"] == {"apply": 1_000, "unary": 120_000}


def test_origins_and_hosts_are_lists() -> None:
    assert settings([], {})[0]["http"] == {"origins": ["*"], "hosts": ["*"]}
    words = ["--cors=http://a.example:80,http://b", "--host-whitelist=a, b"]
    assert settings(words, {})[0]["http"] == {"origins": ["http://a.example:80", "http://b"], "hosts": ["a", "b"]}


def test_lists_and_members_are_split() -> None:
    result, _ = settings(
        ["--initial-cluster", "a=http://h:1,b=http://h:2", "--listen-client-urls=http://h:3,http://h:4"], {}
    )
    assert result["initial_cluster"] == [("a", "http://h:1"), ("b", "http://h:2")]
    assert result["listen_client_urls"] == ["http://h:3", "http://h:4"]


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        (["--colour=red"], {}, "flag provided but not defined: -colour"),
        (["--name"], {}, "flag needs an argument: -name"),
        (["start"], {}, "'start' is not a flag"),
        (["--snapshot-count=many"], {}, "invalid value for --snapshot-count: 'many' is not a whole number"),
        ([], {"ETCD_INSECURE": "perhaps"}, "invalid value for ETCD_INSECURE: 'perhaps' is neither true nor false"),
        (["--backup-interval=1h"], {}, "--backup-interval needs --backup-dir: say where backups go, or leave it out"),
        ([], {"ETCD_BACKUP_KEEP": "3"}, "ETCD_BACKUP_KEEP needs --backup-dir"),
        (["--initial-cluster=a"], {}, "invalid value for --initial-cluster: 'a' is not of the form name=url"),
    ],
)
def test_a_mistake_is_named(arguments: list[str], environment: dict[str, str], sentence: str) -> None:
    with pytest.raises(FlagError, match=sentence.replace("(", r"\(")):
        settings(arguments, environment)


def test_what_has_no_effect_is_said() -> None:
    _, warnings = settings(["--max-wals=7", "--insecure"], {"ETCD_NO_SUCH": "1"})
    assert [w.split(" ")[0] for w in warnings] == ["--max-wals", "unrecognized"]


def test_what_is_logged_is_a_section_of_its_own() -> None:
    result, warnings = settings(["--log-level=debug", "--log-outputs", "stdout,/l"], {"ETCD_LOG_FORMAT": "console"})
    assert result["log"] == {
        "logger": "zap",
        "level": "debug",
        "format": "console",
        "outputs": ["stdout", "/l"],
        "rotation": False,
    }
    assert not warnings


def test_flags_of_tls_go_to_their_side() -> None:
    words = ["--peer-auto-tls", "--peer-cert-allowed-cn=a,b", "--cipher-suites", "X,Y"]
    result, warnings = settings(words, {"ETCD_CERT_FILE": "/c", "ETCD_CLIENT_CERT_AUTH": "true", "ETCD_KEY_FILE": "/k"})
    clients, peers = result["client_tls"], result["peer_tls"]
    assert (clients["cert_file"], clients["key_file"], clients["client_cert_auth"]) == ("/c", "/k", True)
    assert (peers["auto"], peers["allowed_cns"], peers["cert_file"]) == (True, ["a", "b"], "")
    assert result["cipher_suites"] == ["X", "Y"] and result["tls_min_version"] == "TLS1.2"
    assert "cert_file" not in result and not warnings
