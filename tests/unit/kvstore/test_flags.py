"""Etcd's flags and variables become settings; each mistake is a sentence that names its place."""

from __future__ import annotations

import pytest

from kvstore.flags import FlagError, settings


def test_a_flag_wins_over_its_variable_and_both_over_the_default() -> None:
    result, warnings = settings(["--name", "m1", "-data-dir=/d"], {"ETCD_NAME": "other", "ETCD_SNAPSHOT_COUNT": "7"})
    assert (result["name"], result["data_dir"], result["snapshot_count"]) == ("m1", "/d", 7)
    assert result["election_timeout"] == 1000
    assert warnings == []


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
        (["--initial-cluster=a"], {}, "invalid value for --initial-cluster: 'a' is not of the form name=url"),
    ],
)
def test_a_mistake_is_named(arguments: list[str], environment: dict[str, str], sentence: str) -> None:
    with pytest.raises(FlagError, match=sentence.replace("(", r"\(")):
        settings(arguments, environment)


def test_what_has_no_effect_is_said() -> None:
    _, warnings = settings(["--log-level=debug", "--insecure"], {"ETCD_NO_SUCH": "1"})
    assert [w.split(" ")[0] for w in warnings] == ["--log-level", "unrecognized"]
