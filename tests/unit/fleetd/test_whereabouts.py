"""What a machine concludes from where it sees others and what the store's membership says."""

from __future__ import annotations

from fleetd.forming import Peer
from fleetd.whereabouts import endpoints, overrides, peer_url, settled, steps_aside
from kvstore.model import Member


def member(id: int, name: str, host: str, *, learner: bool = False) -> Member:
    return Member(id, name, (f"http://{host}:2380",), (f"http://{host}:2379",), learner)


def voter(name: str, host: str) -> Peer:
    return Peer(name, f"{host}:7480", "c", store_endpoints=(f"http://{host}:2379",))


MEMBERS = (member(10, "a", "10.0.0.1"), member(11, "b", "10.0.0.2"), member(12, "c", "10.0.0.3"))


def test_only_members_seen_elsewhere_are_overridden() -> None:
    seen = {"b": voter("b", "10.0.0.2"), "c": voter("c", "10.0.0.33"), "x": voter("x", "10.0.0.9")}
    assert overrides(MEMBERS, seen) == {"c": ["http://10.0.0.33:2380"]}


def test_clients_go_to_the_other_voters_as_seen_and_else_as_known() -> None:
    seen = {"c": voter("c", "10.0.0.33")}
    learning = (*MEMBERS, member(9, "d", "10.0.0.4", learner=True))
    assert endpoints("a", learning, seen) == ("http://10.0.0.2:2379", "http://10.0.0.33:2379")


def test_without_a_membership_members_that_were_seen_are_asked() -> None:
    client = Peer("d", "10.0.0.4:7480", "c", store_endpoints=("http://10.0.0.1:2379",))
    assert endpoints("e", (), {"d": client, "c": voter("c", "10.0.0.33")}) == ("http://10.0.0.33:2379",)


def test_it_is_settled_when_the_membership_says_what_is_seen() -> None:
    assert settled(MEMBERS, {"b": voter("b", "10.0.0.2")})
    assert not settled(MEMBERS, {"b": voter("b", "10.0.0.22")})


def aside(members: tuple[Member, ...], **hosts: str) -> list[str]:
    """The members that make room, when they are at these hosts."""
    seen = {name: voter(name, host) for name, host in hosts.items()}
    return [one.name for one in members if steps_aside(one, peer_url(seen[one.name]), members, seen)]


def test_of_members_that_swapped_their_addresses_one_makes_room() -> None:
    one, two, three = "10.0.0.1", "10.0.0.2", "10.0.0.3"
    assert aside(MEMBERS, a=one, b=two, c=three) == []
    assert aside(MEMBERS, a=two, b=one, c=three) == ["a"]
    assert aside(MEMBERS, a=one, b=three, c=two) == ["b"]
    assert aside(MEMBERS, a=two, b=three, c=one) == ["a"]
    assert aside(MEMBERS, a=two, b="10.0.0.9", c=three) == [], "the other one moves on by itself"
    moved = (member(10, "a", "10.0.0.1:x"), *MEMBERS[1:])
    assert aside(moved, a=two, b=one, c=three) == [], "room was made"
