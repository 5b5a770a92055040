"""What is measured for the curves, on which scale, and how it is plotted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.chart import Axis
from benchmarks.table import Better, number

STEP_S = 6.0
"""The stores' start and end at each point."""
TURN_S = 0.3
"""A turn's start and end."""
FILL_PER_S, CATCH_UP_PER_S = 15_000, 60_000
"""Keys a second that a slow peer takes as a fill, and sends to a member; for the expected time alone."""


@dataclass(frozen=True)
class Scale:
    """How far each curve goes, and how long each load runs."""

    rounds: int
    seconds: float
    minutes: float
    """What a run may take at most."""
    keys: tuple[int, ...]
    values: tuple[int, ...]
    clients: tuple[int, ...]
    members: tuple[int, ...]
    watchers: tuple[int, ...]
    kept: tuple[int, ...]
    """Keys of the stores whose members are started again and replaced."""

    def points(self, curve: str) -> tuple[int, ...]:
        """The x of each point of a curve."""
        found: tuple[int, ...] = getattr(self, curve)
        return found

    def expected_s(self, curve: str, x: int, peers: int) -> float:
        """About how long one point takes; from runs, on two cores."""
        turns = self.rounds * peers
        filled = x if curve in ("keys", "kept") else 0
        load = (self.seconds + TURN_S) * 2
        if curve == "kept":
            load = 2 * (2.0 + x / CATCH_UP_PER_S)
        return STEP_S + turns * load + peers * filled / FILL_PER_S


WHOLE = Scale(
    rounds=3,
    seconds=1.5,
    minutes=35.0,
    keys=(1_000, 10_000, 100_000, 1_000_000),
    values=(64, 512, 4_096, 32_768, 262_144, 1_048_576),
    clients=(1, 4, 16, 64, 256, 1_000),
    members=(3, 5, 7),
    watchers=(1, 10, 100, 1_000, 10_000),
    kept=(10_000, 100_000, 1_000_000),
)
QUICK = Scale(
    rounds=2,
    seconds=0.8,
    minutes=8.0,
    keys=(1_000, 10_000, 100_000),
    values=(64, 4_096, 262_144),
    clients=(1, 16, 256),
    members=(3, 5),
    watchers=(1, 100, 1_000),
    kept=(10_000, 100_000),
)


@dataclass(frozen=True)
class Plot:
    """One chart of a curve: `what` was measured (put, get ...), and which figure of it."""

    what: str
    figure: str
    title: str
    unit: str
    better: Better
    log: bool = False


@dataclass(frozen=True)
class Curve:
    """Points that differ in one thing, and what is told of them."""

    name: str
    title: str
    text: str
    x: Axis
    plots: tuple[Plot, ...]


def count(value: float) -> str:
    """1000 is 1k, 1000000 is 1M."""
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def size(value: float) -> str:
    """Bytes, in steps of 1,024."""
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if value >= unit:
            return f"{value / unit:g} {name}"
    return f"{value:g} B"


def _rates(log: bool = False) -> tuple[Plot, ...]:
    return tuple(Plot(what, "rate", f"{what}s a second", "1/s", "more", log) for what in ("put", "get"))


def _latencies(*whats: str) -> tuple[Plot, ...]:
    return tuple(
        Plot(what, figure, f"{what}: {figure}", "ms", "less", log=True) for what in whats for figure in ("p50", "p99")
    )


def _axis(name: str, log: bool = True, show: Callable[[float], str] = count) -> Axis:
    return Axis(name, log, show)


CURVES = (
    Curve(
        "keys",
        "Keys",
        "Three members with as many keys of 16 bytes, values of 64; 64 clients on 6 connections put to them, then get "
        "them (linearizable). Memory is a member's RssAnon right after the keys were put, in transactions of 8.",
        _axis("keys"),
        (
            *_rates(),
            *_latencies("put", "get"),
            Plot("fill", "memory", "memory of a member (RssAnon)", "MB", "less", log=True),
        ),
    ),
    Curve(
        "values",
        "Sizes of values",
        "Three members, 50 keys, 8 clients on 6 connections.",
        _axis("bytes of a value", show=size),
        (*_rates(log=True), *_latencies("put", "get")),
    ),
    Curve(
        "clients",
        "Clients",
        "Three members, 10,000 keys, a connection for each client, spread over the members.",
        _axis("clients"),
        (*_rates(log=True), *_latencies("put", "get")),
    ),
    Curve(
        "members",
        "Members",
        "10,000 keys, 64 clients on 6 connections; all members on this one machine.",
        _axis("members", log=False),
        (*_rates(), *_latencies("put", "get")),
    ),
    Curve(
        "watchers",
        "Watchers",
        "Three members, and watchers of every key, each a stream of its own on 6 connections. The rate is of a fixed "
        "number of puts by 16 clients until every watcher has seen all; delivery is from a put's call until a watcher "
        "has its event, at a rate that all stores keep up with (at most 50,000 events a second, 500 puts a second).",
        _axis("watchers"),
        (
            Plot("events", "rate", "events a second", "1/s", "more", log=True),
            *(
                Plot("delivery", f"event_{part}", f"delivery: {part}", "ms", "less", log=True)
                for part in ("p50", "p99")
            ),
        ),
    ),
    Curve(
        "kept",
        "Members that come back",
        "Three members with as many keys. A follower is ended with SIGTERM and started again; then one is ended, "
        "wiped, removed and added. Both times are from the start of its process until it answers a linearizable get.",
        _axis("keys"),
        (
            Plot("restart", "seconds", "restart of a member", "s", "less", log=True),
            Plot("catch-up", "seconds", "catch-up of a wiped member", "s", "less", log=True),
        ),
    ),
)


def shown(value: float) -> str:
    """A tick of a y axis."""
    return count(value) if value >= 1_000 else number(value).rstrip("0").rstrip(".") if value % 1 else f"{value:g}"
