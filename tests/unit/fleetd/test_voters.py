"""Who becomes a member of the store."""

from __future__ import annotations

import asyncio
from pathlib import Path

from agent.pb import node_pb2 as pb
from fleetd.voters import LEARNER_PATIENCE_S, Add, AsClient, Keep, NotYet, Voters, admit
from kvstore.client import Client
from kvstore.model import Member
from tests.unit.kvstore.members import Cluster


def member(id_: int, name: str, learner: bool = False) -> Member:
    return Member(
        id=id_,
        name=name,
        peer_urls=(f"http://{name or 'new'}:2380",),
        client_urls=(f"http://{name}:2379",) if name else (),
        is_learner=learner,
    )


def url(name: str) -> str:
    return f"http://{name}:2380"


def test_a_free_seat_takes_a_learner() -> None:
    assert admit((member(1, "a"),), 3, "b", url("b")) == Add()


def test_asking_again_before_it_started_changes_nothing() -> None:
    assert admit((member(1, "a"), member(2, "", True)), 3, "b", url("new")) == Keep()


def test_one_learner_at_a_time() -> None:
    got = admit((member(1, "a"), member(2, "b", True)), 3, "c", url("c"))
    assert got == NotYet("b is joining now; one at a time", member(2, "b", True))


def test_a_full_store_is_used_through_a_gateway() -> None:
    full = (member(1, "a"), member(2, "b"), member(3, "c"))
    assert admit(full, 3, "d", url("d")) == AsClient()
    assert admit(full, 5, "d", url("d")) == Add()


def test_an_empty_disk_comes_back_as_a_new_member() -> None:
    full = (member(1, "a"), member(2, "b"), member(3, "c"))
    assert admit(full, 3, "b", url("elsewhere")) == Add(remove=(2,))


def test_a_reused_address_replaces_the_member_that_had_it() -> None:
    full = (member(1, "a"), member(2, "b"), member(3, "c"))
    assert admit(full, 3, "d", url("c")) == Add(remove=(3,))


async def test_a_learner_that_never_starts_frees_its_seat_after_a_while(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    client = Client(cluster.endpoints)
    now = 0.0
    voters = Voters(client, 3, "c", clock=lambda: now)
    asked = pb.JoinRequest(cluster_name="fleet", machine_id="late", peer_url="http://127.0.0.1:1")
    try:
        while not (await client.member_list()).members[0].client_urls:
            await asyncio.sleep(0.01)  # a member that has just come up tells its address a moment later
        await client.member_add(["http://127.0.0.1:2"], learner=True)
        assert "is joining now" in (await voters.join(asked)).why
        now = LEARNER_PATIENCE_S - 1
        assert "is joining now" in (await voters.join(asked)).why
        assert len((await client.member_list()).members) == 2
        now = LEARNER_PATIENCE_S + 1
        assert "is joining now" in (await voters.join(asked)).why
        answer = await voters.join(asked)
        assert (answer.why, answer.member) == ("", True)
        (learner,) = [m for m in (await client.member_list()).members if m.is_learner]
        assert learner.peer_urls == ("http://127.0.0.1:1",)
    finally:
        await client.close()
        cluster.close()


async def test_the_membership_of_a_foreign_store_is_left_alone(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, ours=False)
    client = Client(cluster.endpoints)
    try:
        before = (await client.member_list()).members
        asked = pb.JoinRequest(cluster_name="fleet", machine_id="b", peer_url="http://127.0.0.1:1")
        answer = await Voters(client, 3, "c", foreign=cluster.endpoints).join(asked)
        assert (answer.cluster_id, answer.why, answer.member) == ("c", "", False)
        assert list(answer.store_endpoints) == cluster.endpoints
        assert (await client.member_list()).members == before
    finally:
        await client.close()
        cluster.close()
