"""kvctl's verbs on endpoints, each asked by itself: health status hashkv; and defrag."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.kvctl import fields, gotext, shape
from cli.kvctl.session import REFUSED, asynchronous, connect, flags, told, whole
from cli.kvctl.show import allow, out, show
from cli.output import fail
from kvstore.errors import StoreError

if TYPE_CHECKING:
    from kvstore.client import Client

Cluster = Annotated[bool, typer.Option("--cluster", help="Every member's endpoints.")]
Answers = list[tuple[str, dict[str, Any]]]
HEALTH = ("endpoint", "health", "took", "error")
STATUS = (
    *("endpoint", "ID", "version", "db size", "is leader", "is learner", "raft term", "raft index"),
    *("raft applied index", "errors"),
)
HASH = ("endpoint", "hash", "hash_revision")
_ALARMS = {1: "NOSPACE", 2: "CORRUPT"}


def endpoints(cluster: bool) -> list[str]:
    """The endpoints that are given, or those that the members of their cluster tell."""
    if not cluster:
        return flags.endpoints

    async def ask() -> dict[str, Any]:
        async with connect() as client:
            return await client.call("Cluster/MemberList", {"linearizable": True})

    members = asynchronous(ask, saying="failed to fetch endpoints from etcd cluster member list: {}")["members"]
    return [url for member in members for url in member["clientURLs"]]


@dataclass(frozen=True)
class Health:
    """How one endpoint is."""

    endpoint: str
    took: float
    error: str

    @property
    def row(self) -> list[str]:
        """As a table has it."""
        return [self.endpoint, fields.named(not self.error), gotext.duration(self.took), self.error]

    @property
    def shape(self) -> shape.Shape:
        """As JSON has it."""
        told = dict(zip(HEALTH, [self.endpoint, not self.error, gotext.duration(self.took)], strict=False))
        return told | ({"error": self.error} if self.error else {})


async def _asked(endpoint: str) -> Health:
    begin = time.monotonic()
    error = ""
    async with connect([endpoint]) as client:
        try:
            await client.get(b"health")
        except StoreError as caught:
            # A user who may not read the key proves as much: the answer went through the members.
            error = "" if caught.code == "permission_denied" else told(caught)
        took = time.monotonic() - begin
        return Health(endpoint, took, error or await _alarmed(client))


async def _alarmed(client: Client) -> str:
    try:
        answer = await client.call("Maintenance/Alarm", {"action": 0})
    except StoreError as error:
        # Who may not ask, or asks a store that knows no alarms, learns nothing bad.
        return "" if error.code in ("permission_denied", "unimplemented") else "Unable to fetch the alarm list"
    raised = [_ALARMS.get(one["alarm"], "UNKNOWN") for one in answer["alarms"]]
    return "Active Alarm(s): " + "".join(f"{one} " for one in raised) if raised else ""


def health(cluster: Cluster = False) -> None:
    """Try a linearizable read on each endpoint; 1 unless all answer."""
    allow("table", "fields")
    wanted = endpoints(cluster)

    async def every() -> list[Health]:
        return await asyncio.gather(*map(_asked, wanted))

    found = asynchronous(every)
    if flags.output == "simple":
        for one in found:
            well = f"{one.endpoint} is healthy: successfully committed proposal: took = {gotext.duration(one.took)}"
            ill = f"{one.endpoint} is unhealthy: failed to commit proposal: {one.error}"
            print(ill if one.error else well, file=sys.stderr if one.error else sys.stdout, flush=True)
    else:
        rows = [one.row for one in found]
        show([one.shape for one in found], list, fields=lambda: _health_fields(found), rows=lambda: (HEALTH, rows))
    if any(one.error for one in found):
        fail("unhealthy cluster")


def _health_fields(found: list[Health]) -> Iterator[str]:
    for one in found:
        yield f'"Endpoint" : {gotext.quote(one.endpoint)}'
        yield f'"Health" : {fields.named(not one.error)}'
        yield f'"Took" : {gotext.duration(one.took)}'
        yield f'"Error" : {one.error}'
        yield ""


def each(method: str, request: Mapping[str, Any], cluster: bool, failing: str) -> tuple[Answers, StoreError | None]:
    """A unary method at each endpoint, all at once: the answers, in order, and the last error. `failing` tells the
    person of one that fails."""
    wanted = endpoints(cluster)

    async def ask(client: Client, endpoint: str) -> tuple[str, dict[str, Any] | StoreError]:
        try:
            return endpoint, await client.call(method, request, endpoint=endpoint)
        except StoreError as error:
            return endpoint, error

    async def every() -> list[tuple[str, dict[str, Any] | StoreError]]:
        async with connect(wanted) as client:
            return await asyncio.gather(*(ask(client, endpoint) for endpoint in wanted))

    answers: Answers = []
    last: StoreError | None = None
    for endpoint, answer in asynchronous(every):
        if isinstance(answer, StoreError):
            last = answer
            print(failing.format(endpoint=endpoint, error=told(answer)), file=sys.stderr, flush=True)
        else:
            answers.append((endpoint, answer))
    return answers, last


def _status_row(endpoint: str, answer: Mapping[str, Any]) -> list[str]:
    return [
        endpoint,
        f"{answer['header']['member_id']:x}",
        answer["version"],
        gotext.size(answer["dbSize"]),
        fields.named(answer["leader"] == answer["header"]["member_id"]),
        fields.named(answer["isLearner"]),
        str(answer["raftTerm"]),
        str(answer["raftIndex"]),
        str(answer["raftAppliedIndex"]),
        ", ".join(answer["errors"]),
    ]


def status(cluster: Cluster = False) -> None:
    """Show how each endpoint sees itself."""
    allow("table", "fields")
    failing = "Failed to get the status of endpoint {endpoint} ({error})"
    answers, last = each("Maintenance/Status", {}, cluster, failing)
    rows = [_status_row(endpoint, answer) for endpoint, answer in answers]
    show(
        [{"Endpoint": endpoint, "Status": shape.plain(answer)} for endpoint, answer in answers],
        lambda: [", ".join(row) for row in rows],
        fields=lambda: [line for endpoint, answer in answers for line in fields.status(endpoint, answer)],
        rows=lambda: (STATUS, rows),
    )
    if last is not None:
        raise SystemExit(REFUSED)


def hashkv(
    cluster: Cluster = False,
    rev: Annotated[int, typer.Option(parser=whole, metavar="N", help="Up to this revision; 0: the newest.")] = 0,
) -> None:
    """Hash each endpoint's keys: members that hold the same have the same hash at the same revision."""
    allow("table", "fields")
    failing = "Error: {error}"
    answers, last = each("Maintenance/HashKV", {"revision": rev}, cluster, failing)
    rows = [[endpoint, str(one["hash"]), str(one["hash_revision"])] for endpoint, one in answers]
    show(
        [{"Endpoint": endpoint, "HashKV": shape.plain(answer)} for endpoint, answer in answers],
        lambda: [", ".join(row) for row in rows],
        fields=lambda: [line for endpoint, answer in answers for line in fields.hash_kv(endpoint, answer)],
        rows=lambda: (HASH, rows),
    )
    if last is not None:
        raise SystemExit(REFUSED)


def defrag(cluster: Cluster = False) -> None:
    """Give the disk back what the store does not use any more, one endpoint after the other."""
    wanted = endpoints(cluster)

    async def work() -> bool:
        whole = True
        async with connect(wanted) as client:
            for endpoint in wanted:
                try:
                    await client.call("Maintenance/Defragment", {}, endpoint=endpoint)
                    out(f"Finished defragmenting etcd member[{endpoint}]")
                except StoreError as error:
                    whole = False
                    message = f"Failed to defragment etcd member[{endpoint}] ({told(error)})"
                    print(message, file=sys.stderr, flush=True)
        return whole

    if not asynchronous(work):
        raise SystemExit(REFUSED)
