"""The decisions by which machines become one cluster."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fleetd import store
from fleetd.config import Config
from fleetd.forming import (
    AskPledges,
    ClusterRecord,
    Found,
    Join,
    Peer,
    PledgeAnswer,
    Step,
    Wait,
    answer_pledge,
    decide,
    rejoin,
)


def peer(name: str, cluster: str = "", pledged_to: str = "") -> Peer:
    return Peer(name, f"{name}:7480", cluster, pledged_to, 3)


def step(me: str, record: ClusterRecord, *peers: Peer, granted: tuple[str, ...] = (), expect: int = 3) -> Step:
    return decide(me, expect, record, {p.machine_id: p for p in peers}, frozenset(granted))


def test_alone_with_expect_one_founds_at_once() -> None:
    assert step("a", ClusterRecord(), expect=1) == Found()


def test_too_few_machines_says_who_is_here() -> None:
    match step("a", ClusterRecord(), peer("b")):
        case Wait(why):
            assert why == "2 of 3 machines are here: a, b; waiting for the others"
        case other:
            raise AssertionError(other)


def test_only_the_lowest_id_asks_for_pledges() -> None:
    assert step("a", ClusterRecord(), peer("b"), peer("c")) == AskPledges((peer("b"), peer("c")))
    assert isinstance(step("b", ClusterRecord(), peer("a"), peer("c")), Wait)


def test_it_asks_only_those_who_have_not_granted() -> None:
    assert step("a", ClusterRecord(), peer("b"), peer("c"), granted=("b",)) == AskPledges((peer("c"),))


def test_it_founds_with_all_pledges_and_not_with_fewer() -> None:
    assert step("a", ClusterRecord(), peer("b"), peer("c"), granted=("b", "c")) == Found()
    assert step("a", ClusterRecord(), peer("b"), peer("c"), granted=("b", "gone")) != Found()


def test_a_crash_while_founding_is_resumed() -> None:
    assert step("a", ClusterRecord(phase="founding", cluster_id="x")) == Found()


def test_a_formed_cluster_is_joined_and_never_founded_beside() -> None:
    got = step("a", ClusterRecord(), peer("b", "x"), peer("c", "x"), granted=("b", "c"))
    assert got == Join("x", ("b:7480", "c:7480"))


def test_a_pledged_machine_joins_whatever_cluster_was_formed() -> None:
    assert step("b", ClusterRecord(pledged_to="a", pledged_address="a:7480"), peer("c", "x")) == Join("x", ("c:7480",))


def test_two_clusters_of_one_name_are_refused() -> None:
    match step("a", ClusterRecord(), peer("b", "x"), peer("c", "y")):
        case Wait(why):
            assert "two clusters of this name exist (x, y)" in why
        case other:
            raise AssertionError(other)


def test_a_lost_holder_is_named_with_the_way_out() -> None:
    match step("b", ClusterRecord(pledged_to="a", pledged_address="a:7480"), peer("c")):
        case Wait(why):
            assert "pledged to a, which does not answer at a:7480" in why and "forget-pledge" in why
        case other:
            raise AssertionError(other)


def test_a_free_machine_grants_and_grants_again() -> None:
    assert answer_pledge("b", ClusterRecord(), "a", False, None) == PledgeAnswer(True)
    assert answer_pledge("b", ClusterRecord(pledged_to="a"), "a", False, None) == PledgeAnswer(True)


def test_a_bound_machine_refuses_while_its_holder_may_found() -> None:
    bound = ClusterRecord(pledged_to="b", pledged_address="b:7480")
    assert not answer_pledge("c", bound, "a", False, None).granted
    assert not answer_pledge("c", bound, "a", False, peer("b")).granted
    assert not answer_pledge("c", bound, "a", False, peer("b", "x", "a")).granted


def test_a_bound_machine_follows_its_holder_that_bound_itself() -> None:
    bound = ClusterRecord(pledged_to="b", pledged_address="b:7480")
    assert answer_pledge("c", bound, "a", False, peer("b", pledged_to="a")).granted


def test_a_candidate_yields_to_a_lower_id_only_and_releases_first() -> None:
    assert answer_pledge("b", ClusterRecord(), "a", True, None) == PledgeAnswer(True, release=True)
    assert not answer_pledge("b", ClusterRecord(), "c", True, None).granted


def test_who_founds_or_has_joined_grants_nothing() -> None:
    assert not answer_pledge("b", ClusterRecord(phase="founding"), "a", False, None).granted
    assert not answer_pledge("b", ClusterRecord(phase="member", cluster_id="x"), "a", False, None).granted


def test_a_lost_store_goes_back_into_its_own_cluster_and_founds_none() -> None:
    record = ClusterRecord(phase="member", cluster_id="x", initial_state="new")
    others = {p.machine_id: p for p in (peer("b", "x"), peer("c", "y"), peer("d"))}
    assert rejoin(record, others) == Join("x", ("b:7480",))
    match rejoin(record, {"c": peer("c", "y")}):
        case Wait(why):
            assert "cluster x" in why
        case other:
            raise AssertionError(other)


def test_a_member_without_its_store_has_lost_it(tmp_path: Path) -> None:
    config = Config.model_validate({"data_dir": tmp_path})
    founder = ClusterRecord(phase="founding", cluster_id="x", initial_cluster="a=http://a")
    member = replace(founder, phase="member", initial_state="existing")
    client = replace(member, role="client")
    assert [store.lost(config, one) for one in (founder, member, client)] == [False, True, False]
    assert store.member_env(member)["ETCD_INITIAL_CLUSTER_STATE"] == "existing"
    (tmp_path / store.STORE_FOLDER).mkdir()
    (tmp_path / store.STORE_FOLDER / store.IDENTITY_FILE).touch()
    assert not store.lost(config, member)
