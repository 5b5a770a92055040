"""Who becomes a member of the store."""

from __future__ import annotations

from fleetd.voters import Add, AsClient, Keep, NotYet, admit
from kvstore.model import Member


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
    assert got == NotYet("b is joining now; one at a time")


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
