"""Results of curves in a file, so that parts can be measured one after the other and plotted together."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.processes import BenchError

Figures = dict[str, dict[str, list[float]]]
"""Samples by figure (rate, p99 ...) and by peer."""
FORMAT = 1


@dataclass(frozen=True)
class Point:
    """What one point of a curve gave, by what was measured there (put, get ...)."""

    curve: str
    x: int
    rounds: int
    seconds: float
    """How long each load ran."""
    run: int
    """In which run it was measured: an index of `Results.runs`."""
    found: dict[str, Figures]
    failed: dict[str, str] = field(default_factory=dict)
    """By the names of stores that failed here, why; what they gave before is in `found`."""

    def peers(self) -> set[str]:
        """Who was measured."""
        return {peer for each in self.found.values() for by_peer in each.values() for peer in by_peer}

    def median(self, what: str, figure: str) -> dict[str, float]:
        """The median of the rounds, by peer in the order in which they were measured."""
        by_peer = self.found.get(what, {}).get(figure, {})
        return {peer: statistics.median(samples) for peer, samples in by_peer.items() if samples}


@dataclass
class Results:
    """All points that there are, and what the runs were made on."""

    runs: list[dict[str, str]] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)

    def of(self, curve: str) -> list[Point]:
        """A curve's points by x."""
        return sorted((point for point in self.points if point.curve == curve), key=lambda point: point.x)

    def has(self, curve: str, x: int, rounds: int, seconds: float, peers: set[str]) -> bool:
        """Whether a point was measured at least so well, of all these peers."""
        return any(
            point.x == x
            and point.rounds >= rounds
            and point.seconds >= seconds
            and point.peers() >= peers
            and not point.failed
            for point in self.of(curve)
        )

    def add(self, point: Point) -> None:
        """Add a point, in the place of what was there."""
        self.points = [one for one in self.points if (one.curve, one.x) != (point.curve, point.x)]
        self.points.append(point)

    def save(self, path: Path) -> None:
        """Write the file in one step."""
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.new")
        plain = {"format": FORMAT, "runs": self.runs, "points": [asdict(point) for point in self.points]}
        fresh.write_text(json.dumps(plain, indent=1) + "\n")
        fresh.replace(path)


def load(path: Path) -> Results:
    """What the file has; nothing where there is none. Raises BenchError."""
    if not path.exists():
        return Results()
    try:
        plain: dict[str, Any] = json.loads(path.read_text())
        if plain["format"] != FORMAT:
            raise BenchError(f"{path} has results of another version of the bench; name another file with --results")
        return Results(plain["runs"], [Point(**point) for point in plain["points"]])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchError(f"{path} has no results of curves ({error}); name another file with --results") from error
