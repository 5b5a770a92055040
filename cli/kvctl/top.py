"""kvctl's verb top: the members of a cluster as they are, and what they do."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from cli.kvctl import gotext, metrics, shape
from cli.kvctl.endpoint import endpoints
from cli.kvctl.session import asynchronous, connect, flags, told
from cli.kvctl.show import out
from cli.output import fail, table
from kvstore.client import Client
from kvstore.errors import StoreError

SHORTEST_S = 1.0
"""Members are not asked more often."""
HEADINGS = (
    *("ENDPOINT", "ID", "ROLE", "TERM", "INDEX", "BEHIND", "DB SIZE", "IN USE", "MEMORY", "WATCHERS"),
    *("REQUESTS/S", "ERRORS"),
)
_WATCHERS = "etcd_debugging_mvcc_watcher_total"


@dataclass(frozen=True)
class Look:
    """One member at one moment."""

    endpoint: str
    at: float
    status: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    error: str = ""

    @property
    def role(self) -> str:
        """leader, follower, learner, or nothing for one that does not answer."""
        if not self.status:
            return ""
        if self.status["isLearner"]:
            return "learner"
        return "leader" if self.status["leader"] == self.status["header"]["member_id"] else "follower"


async def look(client: Client, endpoint: str) -> Look:
    """Ask one member, in two ways at once."""
    page = asyncio.create_task(asyncio.to_thread(metrics.fetch, endpoint))
    try:
        status = await client.call("Maintenance/Status", {}, endpoint=endpoint)
    except StoreError as error:
        await asyncio.gather(page, return_exceptions=True)
        return Look(endpoint, time.monotonic(), error=told(error))
    try:
        return Look(endpoint, time.monotonic(), status, metrics.figures(await page))
    except metrics.MetricsError as error:
        return Look(endpoint, time.monotonic(), status, error=str(error))


def rate(before: Look | None, now: Look) -> float | None:
    """Requests a second between two looks at a member; None where that is not known, or the member began anew."""
    counts = [one.figures.get(metrics.REQUESTS) for one in (before, now) if one is not None]
    if before is None or None in counts or now.at <= before.at:
        return None
    more = (counts[1] or 0.0) - (counts[0] or 0.0)
    return more / (now.at - before.at) if more >= 0 else None


def told_of(now: Look, before: Look | None, leading: int) -> dict[str, Any]:
    """A member in plain values; what is not known is None. `leading` is the highest index of all."""
    if not now.status:
        return {"endpoint": now.endpoint, "error": now.error}
    status = now.status
    memory, watchers = now.figures.get(metrics.RESIDENT), now.figures.get(_WATCHERS)
    requests = rate(before, now)
    return {
        "endpoint": now.endpoint,
        "id": f"{status['header']['member_id']:x}",
        "role": now.role,
        "term": status["raftTerm"],
        "index": status["raftIndex"],
        "behind": max(leading - status["raftAppliedIndex"], 0),
        "db_size": status["dbSize"],
        "db_size_in_use": status["dbSizeInUse"],
        "memory": None if memory is None else int(memory),
        "watchers": None if watchers is None else int(watchers),
        "requests_per_s": None if requests is None else round(requests, 1),
        "errors": [*status["errors"], *([now.error] if now.error else [])],
    }


def _row(one: Mapping[str, Any]) -> list[object]:
    if "error" in one:
        return [one["endpoint"], *[None] * (len(HEADINGS) - 2), one["error"]]
    sizes = [None if one[name] is None else gotext.size(one[name]) for name in ("db_size", "db_size_in_use", "memory")]
    numbers = [one[name] for name in ("endpoint", "id", "role", "term", "index", "behind")]
    requests = one["requests_per_s"]
    shown = None if requests is None else f"{requests:,.0f}"
    return [*numbers, *sizes, one["watchers"], shown, ", ".join(one["errors"])]


def _frame(looks: Sequence[Look], before: Mapping[str, Look]) -> list[dict[str, Any]]:
    leading = max((one.status["raftIndex"] for one in looks if one.status), default=0)
    return [told_of(one, before.get(one.endpoint), leading) for one in looks]


async def _watch(wanted: list[str], interval: float, once: bool) -> None:
    before: dict[str, Look] = {}
    async with connect(wanted, patient=True) as client:
        while True:
            looks = await asyncio.gather(*(look(client, endpoint) for endpoint in wanted))
            if before or not once:
                _print(_frame(looks, before))
            if once and before:
                return
            before = {one.endpoint: one for one in looks}
            await asyncio.sleep(interval)


def _print(frame: list[dict[str, Any]]) -> None:
    if flags.json:
        out(shape.line(frame))
        return
    if sys.stdout.isatty():
        sys.stdout.write("\x1b[H\x1b[2J")
    out(table(HEADINGS, map(_row, frame)))


def top(
    interval: Annotated[str, typer.Option(help="Between two looks; 1s at least.")] = "2s",
    once: Annotated[bool, typer.Option("--once", help="Two looks a second apart, and the end.")] = False,
) -> None:
    """Show the members and what they do, until interrupted: who leads, how far each is, sizes, requests a second."""
    try:
        pause = gotext.seconds(interval)
    except gotext.GoTextError as error:
        fail(f'invalid argument {gotext.quote(interval)} for "--interval" flag: {error}')
    if pause < SHORTEST_S:
        fail(f"--interval is {SHORTEST_S:.0f}s at least: looking at members costs them work.")
    wanted = endpoints(cluster=True)
    asynchronous(lambda: _watch(wanted, SHORTEST_S if once else pause, once))
