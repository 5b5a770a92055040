"""kvctl's verbs on leases, members and endpoints."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.kvctl import shape
from cli.kvctl.session import BAD_ARGUMENTS, flags, number, run, show
from cli.output import fail, table

if TYPE_CHECKING:
    from kvstore.client import Client

OPTIONS: dict[str, Any] = {"no_args_is_help": True, "rich_markup_mode": None}
lease = typer.Typer(help="Leases: grant revoke timetolive list keep-alive.", **OPTIONS)
member = typer.Typer(help="Members: list add remove update promote.", **OPTIONS)
endpoint = typer.Typer(help="Endpoints: health status.", **OPTIONS)
Cluster = Annotated[bool, typer.Option("--cluster", help="Every member's endpoint.")]
PeerUrls = Annotated[str, typer.Option("--peer-urls", help="Peer URLs, separated by commas.")]


@lease.command("grant")
def lease_grant(ttl: int) -> None:
    """Make a lease of TTL seconds."""
    result = run(lambda client: client.lease_grant(ttl))
    show({"ID": result.id, "TTL": result.ttl, "Error": ""}, f"lease {result.id:016x} granted with TTL({result.ttl}s)")


@lease.command("revoke")
def lease_revoke(id: str) -> None:
    """End a lease and delete its keys."""
    held = number(id)
    run(lambda client: client.lease_revoke(held))
    show({}, f"lease {held:016x} revoked")


@lease.command("timetolive")
def lease_timetolive(id: str, keys: Annotated[bool, typer.Option("--keys", help="And its keys.")] = False) -> None:
    """Say what is left of a lease."""
    result = run(lambda client: client.lease_time_to_live(number(id), keys))
    simple = f"lease {result.id:016x} granted with TTL({result.granted_ttl}s), remaining({result.ttl}s)"
    if keys:
        simple += f", attached keys([{' '.join(key.decode(errors='surrogateescape') for key in result.keys)}])"
    told = shape.time_to_live(result, keys)
    show(told, simple if result.ttl >= 0 else f"lease {number(id):016x} already expired")


@lease.command("list")
def lease_list() -> None:
    """List all leases."""
    found = run(lambda client: client.leases())
    show(
        {"leases": [{"id": one} for one in found]},
        "\n".join([f"found {len(found)} leases", *map("{:016x}".format, found)]),
    )


@lease.command("keep-alive")
def lease_keep_alive(id: str, once: Annotated[bool, typer.Option("--once", help="Renew once.")] = False) -> None:
    """Renew a lease until interrupted."""
    import asyncio

    held = number(id)

    async def work(client: Client) -> None:
        while True:
            ttl = await client.lease_keepalive(held)
            show({"ID": held, "TTL": ttl}, f"lease {held:016x} keepalived with TTL({ttl})")
            sys.stdout.flush()
            if once:
                return
            await asyncio.sleep(ttl / 3)

    run(work)


@member.command("list")
def member_list() -> None:
    """List the members: id, status, name, peer URLs, client URLs, whether a learner."""
    result = run(lambda client: client.member_list())
    rows = (
        f"{one.id:x}, {'started' if one.name else 'unstarted'}, {one.name}, {','.join(one.peer_urls)}, "
        f"{','.join(one.client_urls)}, {str(one.is_learner).lower()}"
        for one in result.members
    )
    show(shape.members(result), "\n".join(rows))


@member.command("add")
def member_add(
    name: str, peer_urls: PeerUrls, learner: Annotated[bool, typer.Option("--learner", help="Without a vote.")] = False
) -> None:
    """Add a member, and print the settings that it is to be started with."""
    result = run(lambda client: client.member_add(peer_urls.split(","), learner))
    ours = {result.subject: name}
    initial = ",".join(f"{ours.get(one.id, one.name)}={url}" for one in result.members for url in one.peer_urls)
    simple = (
        f"Member {result.subject:16x} added to cluster {result.header.cluster_id:16x}\n\n"
        f'ETCD_NAME="{name}"\nETCD_INITIAL_CLUSTER="{initial}"\n'
        f'ETCD_INITIAL_ADVERTISE_PEER_URLS="{peer_urls}"\nETCD_INITIAL_CLUSTER_STATE="existing"'
    )
    show(shape.members(result), simple)


@member.command("remove")
def member_remove(id: str) -> None:
    """Remove a member."""
    result = run(lambda client: client.member_remove(number(id)))
    show(shape.members(result), f"Member {number(id):16x} removed from cluster {result.header.cluster_id:16x}")


@member.command("update")
def member_update(id: str, peer_urls: PeerUrls) -> None:
    """Change a member's peer URLs."""
    result = run(lambda client: client.member_update(number(id), peer_urls.split(",")))
    show(shape.members(result), f"Member {number(id):16x} updated in cluster {result.header.cluster_id:16x}")


@member.command("promote")
def member_promote(id: str) -> None:
    """Make a learner a voter."""
    result = run(lambda client: client.member_promote(number(id)))
    show(shape.members(result), f"Member {number(id):16x} promoted in cluster {result.header.cluster_id:16x}")


def _endpoints(cluster: bool) -> list[str]:
    if not cluster:
        return flags.endpoints
    members = run(lambda client: client.member_list()).members
    return [url for one in members for url in one.client_urls]


@endpoint.command("health")
def health(cluster: Cluster = False) -> None:
    """Try a linearizable read on each endpoint; 1 unless all answer."""
    import asyncio

    from kvstore.client import Client
    from kvstore.errors import StoreError

    async def ask(url: str) -> dict[str, Any]:
        begin = time.monotonic()
        error = ""
        try:
            async with Client([url], timeout=flags.timeout) as client:
                await client.get(b"health")
        except StoreError as caught:
            error = caught.message
        took = f"{(time.monotonic() - begin) * 1000:.3f}ms"
        return {"endpoint": url, "health": not error, "took": took} | ({"error": error} if error else {})

    async def every(urls: list[str]) -> list[dict[str, Any]]:
        return await asyncio.gather(*map(ask, urls))

    found = asyncio.run(every(_endpoints(cluster)))
    if flags.json:
        print(shape.line(found))
    else:
        for one in found:
            if one["health"]:
                print(f"{one['endpoint']} is healthy: successfully committed proposal: took = {one['took']}")
            else:
                print(f"{one['endpoint']} is unhealthy: {one['error']}", file=sys.stderr)
    if not all(one["health"] for one in found):
        fail("unhealthy cluster")


@endpoint.command("status")
def status(cluster: Cluster = False) -> None:
    """Show how each endpoint sees itself."""
    import asyncio

    urls = _endpoints(cluster)

    async def work(client: Client) -> list[Any]:
        return await asyncio.gather(*(client.status(url) for url in urls))

    found = run(work)
    headers = ["ENDPOINT", "ID", "VERSION", "DB SIZE", "LEADER", "LEARNER", "TERM", "INDEX", "APPLIED", "ERRORS"]
    rows = [
        (
            *(url, f"{one.member_id:x}", one.version, one.db_size, str(one.leader == one.member_id).lower()),
            *(str(one.is_learner).lower(), one.raft_term, one.raft_index, one.raft_applied_index, ",".join(one.errors)),
        )
        for url, one in zip(urls, found, strict=True)
    ]
    show([shape.status(url, one) for url, one in zip(urls, found, strict=True)], table(headers, rows))


def bench(context: typer.Context) -> None:
    """Load the store with kvload; its arguments follow, for example `put --clients 64 --total 10000`."""
    beside = Path(sys.executable).with_name("kvload")
    built = Path(__file__).parents[2] / "target" / "release" / "kvload"
    program = next((str(one) for one in (built, beside) if one.exists()), shutil.which("kvload"))
    if program is None:
        fail("The load generator kvload is not installed beside kvctl.", BAD_ARGUMENTS)
    words = [program, *context.args]
    if context.args and not any(word.startswith("--endpoints") for word in context.args):
        words += ["--endpoints", ",".join(flags.endpoints)]
    if flags.json and "--json" not in words:
        words.append("--json")
    os.execv(program, words)
