"""Line charts as SVG: axes, log scales, a legend. Text stays text, there are no scripts, colours follow the reader's
scheme, light or dark. The packages that draw such charts were looked at in docs/decisions/dependencies.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 76, 24, 62, 48
WANTED_TICKS = 5
STEPS = (1.0, 2.0, 5.0, 10.0)
DASHES = ("", "7 4", "2 3")
"""Of the lines in their order, for who sees no colours; with more lines they come again."""
COLOURS = (("#0550ae", "#6cb6ff"), ("#bc4c00", "#f69d50"), ("#1a7f37", "#6bc46d"))
"""Of the lines in their order, on light and on dark."""


@dataclass(frozen=True)
class Axis:
    """What an axis tells; `show` writes a tick's value."""

    name: str
    log: bool
    show: Callable[[float], str]


@dataclass(frozen=True)
class Line:
    """One line through points (x, y)."""

    name: str
    points: Sequence[tuple[float, float]]


def ticks(low: float, high: float, log: bool) -> list[float]:
    """Round values from at most `low` to at least `high`; on a log scale both must be above 0."""
    if log:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        within = (1.0, 2.0, 5.0) if last - first < WANTED_TICKS / 2 else (1.0,)
        many = [step * 10.0**power for power in range(first, last + 1) for step in within]
        start = max((at for at, value in enumerate(many) if value <= low * (1 + 1e-9)), default=0)
        end = next((at for at, value in enumerate(many) if value >= high * (1 - 1e-9)), len(many) - 1)
        return many[start : max(end, start + 1) + 1]
    rough = (high - low or high or 1.0) / WANTED_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(one for one in STEPS if one * power >= rough * (1 - 1e-9))
    start, end = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [at * step for at in range(start, max(end, start + 1) + 1)]


def draw(title: str, x: Axis, y: Axis, lines: Sequence[Line]) -> str:
    """The chart. A linear y axis starts at 0; x has a tick for each x there is. Raises ValueError without points."""
    drawn = [Line(one.name, [p for p in one.points if _fits(p[0], x) and _fits(p[1], y)]) for one in lines]
    xs = sorted({p[0] for one in drawn for p in one.points})
    ys = [p[1] for one in drawn for p in one.points]
    if not xs:
        raise ValueError(f"{title}: there is no point to draw")
    rows = ticks(min(ys) if y.log else 0.0, max(ys), y.log)

    def across(value: float) -> float:
        return LEFT + 12 + _part(value, xs[0], xs[-1], x.log) * (WIDTH - LEFT - RIGHT - 24)

    def up(value: float) -> float:
        return HEIGHT - BOTTOM - _part(value, rows[0], rows[-1], y.log) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="title">',
        f'<title id="title">{escape(title)}</title>',
        f"<style>{_style()}</style>",
        f'<rect class="page" width="{WIDTH}" height="{HEIGHT}"/>',
        _text(LEFT, 20, title, "start", "head"),
    ]
    for row in rows:
        parts.append(f'<path class="grid" d="M{LEFT} {up(row):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(_text(LEFT - 8, up(row) + 4, y.show(row), "end"))
    for column in xs:
        parts.append(f'<path class="grid" d="M{across(column):.1f} {HEIGHT - BOTTOM}v5"/>')
        parts.append(_text(across(column), HEIGHT - BOTTOM + 20, x.show(column), "middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x.name, "middle"))
    parts.append(_text(14, (TOP + HEIGHT - BOTTOM) / 2, y.name, "middle", "turned"))
    at = float(LEFT)
    for number, line in enumerate(drawn):
        kind = f"line{number % len(COLOURS)}"
        places = [(across(px), up(py)) for px, py in sorted(line.points)]
        if places:
            parts.append(f'<path class="{kind}" d="M{"L".join(f"{px:.1f} {py:.1f}" for px, py in places)}"/>')
            parts += [f'<circle class="{kind}" cx="{px:.1f}" cy="{py:.1f}" r="3.5"/>' for px, py in places]
        parts.append(f'<path class="{kind}" d="M{at:.0f} 40h28"/>')
        parts.append(_text(at + 34, 44, line.name, "start"))
        at += 60 + 7.2 * len(line.name)
    return "\n".join([*parts, "</svg>", ""])


def _fits(value: float, axis: Axis) -> bool:
    return math.isfinite(value) and (value > 0 or not axis.log)


def _part(value: float, low: float, high: float, log: bool) -> float:
    """Where a value lies from `low` (0) to `high` (1); the middle where these are the same."""
    if log:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return 0.5 if high == low else (value - low) / (high - low)


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    turned = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if kind == "turned" else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{turned}>{escape(text)}</text>'


def _style() -> str:
    """Colours on light, then on dark."""

    def scheme(shade: int, page: str, ink: str, grid: str) -> str:
        lines = "".join(
            f"path.line{at}{{stroke:{pair[shade]}}}circle.line{at}{{fill:{pair[shade]}}}"
            for at, pair in enumerate(COLOURS)
        )
        return f".page{{fill:{page}}}text{{fill:{ink}}}.grid{{stroke:{grid}}}{lines}"

    dashes = "".join(f".line{at}{{stroke-dasharray:{dash}}}" for at, dash in enumerate(DASHES) if dash)
    return (
        "text{font:12px sans-serif}.head{font-size:14px;font-weight:bold}path{fill:none;stroke-width:2}"
        f".grid{{stroke-width:1}}{dashes}{scheme(0, '#ffffff', '#1f2328', '#d0d7de')}"
        f"@media (prefers-color-scheme:dark){{{scheme(1, '#0d1117', '#e6edf3', '#3d444d')}}}"
    )
