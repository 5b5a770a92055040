"""kvctl's verbs that try how a cluster does: check perf, check datascale. The load is kvload's."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.kvctl import gotext, metrics, security
from cli.kvctl.bar import Bar
from cli.kvctl.keys import raw
from cli.kvctl.load import environment, generator
from cli.kvctl.session import BAD_FEATURE, BAD_INPUT, REFUSED, flags, run
from cli.kvctl.show import out
from cli.output import fail
from kvstore.client import prefix_end

if TYPE_CHECKING:
    from kvstore.client import Client

ALIASES = {"s": "s", "small": "s", "m": "m", "medium": "m", "l": "l", "large": "l", "xl": "xl", "xLarge": "xl"}
SECONDS = 60
LEAST_OF_RATE = 0.9
MOST_SLOWEST_S = 0.5
MOST_STDDEV_S = 0.1
CONNECTIONS = 16
LOOK_S = 1.0
"""Between two looks at how far it is."""
_MIB = 1 << 20
Load = Annotated[str, typer.Option(help="s(mall), m(edium), l(arge) or xl(arge).")]
AutoCompact = Annotated[bool, typer.Option("--auto-compact", help="Compact the store afterwards.")]
AutoDefrag = Annotated[bool, typer.Option("--auto-defrag", help="Defragment each endpoint afterwards.")]


@dataclass(frozen=True)
class Work:
    """What a check asks for: puts a second or in all, and how many clients at once."""

    puts: int
    clients: int


PERF = {"s": Work(150, 50), "m": Work(1000, 200), "l": Work(8000, 500), "xl": Work(15000, 1000)}
DATASCALE = {"s": Work(10_000, 50), "m": Work(100_000, 200), "l": Work(1_000_000, 500), "xl": Work(3_000_000, 1000)}


def _chosen(load: str, of: Mapping[str, Work]) -> Work:
    if load not in ALIASES:
        fail(f"unknown load option {load}", BAD_FEATURE)
    return of[ALIASES[load]]


async def _held(client: Client, prefix: str) -> int:
    key = raw(prefix)
    return (await client.get(key, range_end=prefix_end(key), count_only=True)).count


def _unused(prefix: str) -> None:
    if run(lambda client: _held(client, prefix)):
        shown = gotext.quote(prefix)
        fail(f"prefix {shown} has keys. Delete with 'kvctl del --prefix {prefix}' first", BAD_INPUT)


async def _loaded(words: list[str], told: dict[str, str], progress: Any) -> dict[str, Any] | str:
    """What kvload tells in the end, or why it did not; `told` is its environment, `progress` goes on meanwhile."""
    endpoints = ["--endpoints", ",".join(flags.endpoints), *security.words(flags.tls), "--json"]
    pipe = asyncio.subprocess.PIPE
    command = [generator(), *words, *endpoints]
    process = await asyncio.create_subprocess_exec(*command, env=told, stdout=pipe, stderr=pipe)
    showing = asyncio.create_task(progress)
    try:
        report, errors = await process.communicate()
    finally:
        showing.cancel()
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        return errors.decode(errors="replace").strip()
    found: dict[str, Any] = json.loads(report)
    return found


async def _clean(client: Client, prefix: str, compact: bool, defrag: bool) -> None:
    key = raw(prefix)
    gone = await client.delete(key, range_end=prefix_end(key))
    if compact:
        out(f"Compacting with revision {gone.header.revision}")
        await client.compact(gone.header.revision, physical=True)
        out(f"Compacted with revision {gone.header.revision}")
    for endpoint in flags.endpoints if defrag else ():
        out(f"Defragmenting {gotext.quote(endpoint)}")
        await client.call("Maintenance/Defragment", {}, endpoint=endpoint)
        out(f"Defragmented {gotext.quote(endpoint)}")


async def _clock(bar: Bar) -> None:
    begun = time.monotonic()
    while True:
        bar(min(int(time.monotonic() - begun), SECONDS), SECONDS)
        await asyncio.sleep(LOOK_S)


async def _counting(client: Client, bar: Bar, prefix: str, total: int) -> None:
    while True:
        bar(await _held(client, prefix), total)
        await asyncio.sleep(LOOK_S)


def _judged(found: dict[str, Any], wanted: int) -> bool:
    """Print the three verdicts of etcd's own check; whether all are good."""
    rate, slowest, stddev = int(found["ops_per_s"]) + 1, found["max_ms"] / 1000, found["stddev_ms"] / 1000
    fast = bool(found["ops_per_s"] / wanted > LEAST_OF_RATE)
    out(f"PASS: Throughput is {rate} writes/s" if fast else f"FAIL: Throughput too low: {rate} writes/s")
    quick = bool(slowest <= MOST_SLOWEST_S)
    out(f"PASS: Slowest request took {slowest:f}s" if quick else f"Slowest request took too long: {slowest:f}s")
    even = bool(stddev <= MOST_STDDEV_S)
    out(f"PASS: Stddev is {stddev:f}s" if even else f"Stddev too high: {stddev:f}s")
    return fast and quick and even


def perf(
    load: Load = "s",
    prefix: Annotated[str, typer.Option(help="Keys are written under this.")] = "/etcdctl-check-perf/",
    auto_compact: AutoCompact = False,
    auto_defrag: AutoDefrag = False,
) -> None:
    """Put for 60 s at the pace of a small, medium or large installation, and say whether the store keeps up."""
    work = _chosen(load, PERF)
    _unused(prefix)
    words = ["put", "--rate", str(work.puts), "--duration", str(SECONDS), "--prefix", prefix]
    words += ["--clients", str(work.clients), "--connections", str(min(work.clients, CONNECTIONS))]
    words += ["--key-size", "256", "--val-size", "1024", "--key-space", str(work.puts * SECONDS)]
    told = environment()

    async def check(client: Client) -> dict[str, Any] | str:
        bar = Bar(lambda seconds: f"{seconds}s")
        try:
            return await _loaded(words, told, _clock(bar))
        finally:
            bar.close()
            await _clean(client, prefix, auto_compact, auto_defrag)

    found = run(check, patient=True)
    if isinstance(found, str):
        out("FAIL: too many errors")
        out(f"FAIL: ERROR({found}) -> 1")
        raise SystemExit(REFUSED)
    good = _judged(found, work.puts)
    out("PASS" if good else "FAIL")
    if not good:
        raise SystemExit(REFUSED)


def _resident(when: str) -> float:
    try:
        return metrics.figures(metrics.fetch(flags.endpoints[0]))[metrics.RESIDENT]
    except (metrics.MetricsError, KeyError) as error:
        print(f"could not find {metrics.RESIDENT}: {error}", file=sys.stderr)
        out(f"FAIL: Could not read {metrics.RESIDENT} {when} the put operations.")
        raise SystemExit(REFUSED) from None


def datascale(
    load: Load = "s",
    prefix: Annotated[str, typer.Option(help="Keys are written under this.")] = "/etcdctl-check-datascale/",
    auto_compact: AutoCompact = False,
    auto_defrag: AutoDefrag = False,
) -> None:
    """Put many keys, and say what memory they cost the first endpoint."""
    work = _chosen(load, DATASCALE)
    _unused(prefix)
    before = _resident("before")
    many = f"{work.puts} key-value pairs, 1024 bytes per key-value, {work.clients} concurrent clients"
    out(f"Start data scale check for work load [{many}].")
    words = ["put", "--total", str(work.puts), "--prefix", prefix, "--clients", str(work.clients)]
    words += ["--connections", str(min(work.clients, CONNECTIONS)), "--key-size", "512", "--val-size", "512"]
    # Of a power of two kvload writes each key once.
    words += ["--key-space", str(1 << work.puts.bit_length())]
    told = environment()

    async def check(client: Client) -> tuple[dict[str, Any] | str, float]:
        bar = Bar(str)
        try:
            found = await _loaded(words, told, _counting(client, bar, prefix, work.puts))
            return found, await asyncio.to_thread(_resident, "after")
        finally:
            bar.close()
            await _clean(client, prefix, auto_compact, auto_defrag)

    found, after = run(check, patient=True)
    if isinstance(found, str):
        out("FAIL: too many errors")
        out(f"FAIL: ERROR({found}) -> 1")
        raise SystemExit(REFUSED)
    out(f"PASS: Approximate system memory used : {(after - before) / _MIB:.2f} MB.")
