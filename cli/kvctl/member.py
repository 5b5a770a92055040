"""kvctl's verbs on members: add remove update promote list; and move-leader."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.kvctl import fields, shape
from cli.kvctl.gotext import quote
from cli.kvctl.session import BAD_ARGUMENTS, BAD_FEATURE, call, count, flags, number, run
from cli.kvctl.show import Rows, allow, show, show_message
from cli.output import fail

if TYPE_CHECKING:
    from kvstore.client import Client

Name = Annotated[list[str] | None, typer.Argument(metavar="NAME", show_default=False)]
Id = Annotated[list[str] | None, typer.Argument(metavar="MEMBER", show_default=False)]
PeerUrls = Annotated[str, typer.Option("--peer-urls", metavar="URL,URL", help="Where its peers reach it.")]
HEADINGS = ("ID", "Status", "Name", "Peer Addrs", "Client Addrs", "Is Learner")
_NO_ID = "member ID is not provided"


def _id(words: list[str] | None) -> int:
    (word,) = count(words, 1, 1, _NO_ID)
    return number(word, "bad member ID arg ({}), expecting ID in Hex", signed=False)


def _urls(peer_urls: str) -> list[str]:
    if not peer_urls:
        fail("member peer urls not provided", BAD_ARGUMENTS)
    urls = peer_urls.split(",")
    for url in urls:
        _check(url.strip())
    return urls


def _check(url: str) -> None:
    """Refuse what can't be where a member is reached, in etcd's words."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in ("http", "https", "unix", "unixs"):
        fail(f"URL scheme must be http, https, unix, or unixs: {url}")
    if scheme.startswith("unix"):
        return
    host, slash, _ = rest.partition("/")
    if not re.fullmatch(r"(\[.*\]|[^:]*):[^:]*", host):
        fail(f'URL address does not have the form "host:port": {url}')
    if slash:
        fail(f"URL must not contain a path: {url}")


def _show(name: str, answer: Mapping[str, Any], simple: list[str]) -> None:
    if flags.json and flags.hex:
        show(shape.hexadecimal(answer), lambda: simple)
    else:
        show_message(name, answer, lambda: simple)


def add(
    words: Name = None,
    peer_urls: PeerUrls = "",
    learner: Annotated[bool, typer.Option("--learner", help="Without a vote.")] = False,
) -> None:
    """Add a member, and print the settings that it is to be started with."""
    allow("protobuf")
    name, *more = count(words, 1, 1000, "member name not provided")
    if more:
        meant = "".join(f", did you mean --peer-urls={word}" for word in words or [] if word.lower().startswith("http"))
        fail(f"too many arguments{meant}", BAD_ARGUMENTS)
    urls = _urls(peer_urls)
    answer = call("Cluster/MemberAdd", {"peerURLs": urls, "isLearner": learner})
    new = answer["member"]["ID"]
    names = {new: name}
    initial = ",".join(
        f"{names.get(one['ID'], one['name'])}={url}" for one in answer["members"] for url in one["peerURLs"]
    )
    simple = [
        f"Member {new:16x} added to cluster {answer['header']['cluster_id']:16x}",
        "",
        f"ETCD_NAME={quote(name)}",
        f"ETCD_INITIAL_CLUSTER={quote(initial)}",
        f"ETCD_INITIAL_ADVERTISE_PEER_URLS={quote(peer_urls)}",
        'ETCD_INITIAL_CLUSTER_STATE="existing"',
    ]
    _show("MemberAddResponse", answer, simple)


def _change(verb: str, id: int, request: Mapping[str, Any], done: str) -> None:
    answer = call(f"Cluster/{verb}", {"ID": id, **request})
    simple = f"Member {id:16x} {done} cluster {answer['header']['cluster_id']:16x}"
    _show(f"{verb}Response", answer, [simple])


def remove(words: Id = None) -> None:
    """Remove a member."""
    allow("protobuf")
    _change("MemberRemove", _id(words), {}, "removed from")


def update(words: Id = None, peer_urls: PeerUrls = "") -> None:
    """Change a member's peer URLs."""
    allow("protobuf")
    _change("MemberUpdate", _id(words), {"peerURLs": _urls(peer_urls)}, "updated in")


def promote(words: Id = None) -> None:
    """Make a learner a voter."""
    allow("protobuf")
    _change("MemberPromote", _id(words), {}, "promoted in")


def _rows(answer: Mapping[str, Any]) -> list[list[str]]:
    return [
        [
            f"{one['ID']:x}",
            "started" if one["name"] else "unstarted",
            one["name"],
            ",".join(one["peerURLs"]),
            ",".join(one["clientURLs"]),
            str(one["isLearner"]).lower(),
        ]
        for one in answer["members"]
    ]


def list_(
    consistency: Annotated[str, typer.Option(help="l: linearizable, s: as the member itself knows.")] = "l",
) -> None:
    """List the members: id, status, name, peer URLs, client URLs, whether a learner."""
    allow("fields", "table", "protobuf")
    if consistency not in ("l", "s"):
        fail(f"unknown consistency flag {quote(consistency)}", BAD_FEATURE)
    answer = call("Cluster/MemberList", {"linearizable": consistency == "l"})
    if flags.json and flags.hex:
        show(shape.hexadecimal(answer), list)
        return

    def rows() -> Rows:
        return HEADINGS, _rows(answer)

    show_message(
        "MemberListResponse",
        answer,
        lambda: [", ".join(row) for row in _rows(answer)],
        lambda: fields.members(answer),
        rows,
    )


def move_leader(words: Id = None) -> None:
    """Hand the lead over to another member; --endpoints are to name the leader's."""
    allow("protobuf")
    (word,) = count(words, 1, 1, "move-leader command needs 1 argument")
    target = number(word, signed=False)

    async def work(client: Client) -> tuple[int, dict[str, Any]] | None:
        for endpoint in flags.endpoints:
            status = await client.call("Maintenance/Status", {}, endpoint=endpoint)
            if status["leader"] == status["header"]["member_id"]:
                asked = client.call("Maintenance/MoveLeader", {"targetID": target}, endpoint=endpoint)
                return status["leader"], await asked
        return None

    moved = run(work)
    if moved is None:
        fail(f"no leader endpoint given at [{' '.join(flags.endpoints)}]", BAD_ARGUMENTS)
    leader, answer = moved
    simple = f"Leadership transferred from {leader:x} to {target:x}"
    show_message("MoveLeaderResponse", answer, lambda: [simple])
