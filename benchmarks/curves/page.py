"""docs/performance.md and its charts, written from results."""

from __future__ import annotations

from pathlib import Path

from benchmarks.chart import Axis, Line, draw
from benchmarks.curves.plan import CURVES, Curve, Plot, shown
from benchmarks.curves.results import Results
from benchmarks.table import Row, number

PAGE, CHARTS = "performance.md", "performance"
HEAD = """# Performance

`make curves` measured this and wrote this page, the charts and the tables; don't edit them. How it measures, and the
figures of one size of everything: [benchmarks](benchmarks.md). Each point has fresh stores of all peers on one disk,
with their defaults but a quota of 8 GB; the stores take turns in rounds, and the median of the rounds is told. Load
generator and all members share the machine. `ratio` is our figure divided by the peer's. The machine at the start of
each run:
"""


def write(results: Results, directory: Path) -> list[Path]:
    """Write the page and the charts of all that was measured. Returns the files."""
    charts = directory / CHARTS
    charts.mkdir(parents=True, exist_ok=True)
    files, parts = [], [HEAD, _runs(results)]
    for curve in CURVES:
        points = results.of(curve.name)
        if not points:
            continue
        parts.append(f"## {curve.title}\n\n{curve.text}\n")
        parts += [told] if (told := _failures(results, curve)) else []
        for plot in curve.plots:
            lines = lines_of(results, curve, plot)
            if not lines:
                continue
            name = f"{curve.name}-{plot.what}-{plot.figure.replace('_', '-')}.svg"
            unit = Axis(plot.unit, plot.log, shown)
            (charts / name).write_text(draw(f"{plot.title}, by {curve.x.name}", curve.x, unit, lines))
            files.append(charts / name)
            parts.append(f"![{plot.title}, by {curve.x.name}]({CHARTS}/{name})\n\n{table(results, curve, plot)}\n")
    page = directory / PAGE
    page.write_text("\n".join(parts))
    return [page, *files]


def lines_of(results: Results, curve: Curve, plot: Plot) -> list[Line]:
    """A line for each peer, in the order in which they were measured."""
    found: dict[str, list[tuple[float, float]]] = {}
    for point in results.of(curve.name):
        for peer, value in point.median(plot.what, plot.figure).items():
            found.setdefault(peer, []).append((point.x, value))
    return [Line(peer, points) for peer, points in found.items()]


def table(results: Results, curve: Curve, plot: Plot) -> str:
    """The figures of a chart as a Markdown table."""
    rows = [
        Row(curve.x.show(point.x), plot.unit, plot.better, found)
        for point in results.of(curve.name)
        if (found := point.median(plot.what, plot.figure))
    ]
    peers = list(dict.fromkeys(peer for row in rows for peer in row.figures))
    head = [f"{curve.x.name} | {plot.unit}: {peers[0]}", *(f"{peer} | ratio" for peer in peers[1:])]
    lines = [f"| {' | '.join(head)} |", "|---:" * (2 * len(peers)) + "|"]
    for row in rows:
        cells = [number(row.figures[peer]) if peer in row.figures else "-" for peer in peers]
        for at, peer in reversed(list(enumerate(peers[1:], 1))):
            ratio = row.ratio(peer) if peers[0] in row.figures else None
            cells.insert(at + 1, "-" if ratio is None else f"{ratio:.2f}x")
        lines.append(f"| {' | '.join([row.what, *cells])} |")
    return "\n".join([*lines, "", f"{plot.better} is better"])


def _failures(results: Results, curve: Curve) -> str:
    """A line for each store that failed at a point."""
    lines = [
        f"- {peer} failed at {curve.x.show(point.x)} {curve.x.name}, {why}"
        for point in results.of(curve.name)
        for peer, why in point.failed.items()
    ]
    return "\n".join([*lines, ""]) if lines else ""


def _runs(results: Results) -> str:
    """On what the points were measured; runs of which none is left are not told."""
    lines = []
    for number_, run in enumerate(results.runs):
        mine = [point for point in results.points if point.run == number_]
        if not mine:
            continue
        curves = ", ".join(dict.fromkeys(point.curve for point in mine))
        how = sorted({(point.rounds, point.seconds) for point in mine})
        loads = ", ".join(f"{rounds} rounds of {seconds:g} s" for rounds, seconds in how)
        told = "; ".join(f"{name} {value}" for name, value in run.items())
        lines.append(f"- {curves} ({loads}): {told}")
    return "\n".join([*lines, ""])
