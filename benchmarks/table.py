"""Rows of figures, and how they are printed: ours, each peer's, and by what factor ours is better or worse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Better = Literal["more", "less"]


@dataclass(frozen=True)
class Row:
    """One thing that was measured, by who was measured; the first is ours."""

    what: str
    unit: str
    better: Better
    figures: dict[str, float]

    def ratio(self, peer: str) -> float | None:
        """Ours divided by the peer's; None where either is missing or the peer's is 0."""
        mine = next(iter(self.figures.values()), None)
        theirs = self.figures.get(peer)
        return None if mine is None or not theirs else mine / theirs


def number(value: float) -> str:
    """Three digits that count, or whole thousands with a comma."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.{0 if value == 0 else 1 if value >= 10 else 2 if value >= 1 else 3 if value >= 0.1 else 4}f}"


def text(title: str, rows: Sequence[Row]) -> str:
    """A table as aligned text; `ratio` is ours divided by the figure before it."""
    peers = list(dict.fromkeys(name for row in rows for name in row.figures))
    head = [title, "unit", *peers[:1]]
    for peer in peers[1:]:
        head += [peer, "ratio"]
    lines = [[*head, ""]]
    for row in rows:
        line = [row.what, row.unit, *(number(row.figures[peer]) if peer in row.figures else "-" for peer in peers[:1])]
        for peer in peers[1:]:
            ratio = row.ratio(peer)
            line += [
                number(row.figures[peer]) if peer in row.figures else "-",
                "-" if ratio is None else f"{ratio:.2f}x",
            ]
        lines.append([*line, f"{row.better} is better"])
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at < 2 or at == len(widths) - 1 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def plain(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For JSON: every row with its ratios."""
    return [{**asdict(row), "ratios": {peer: row.ratio(peer) for peer in list(row.figures)[1:]}} for row in rows]
