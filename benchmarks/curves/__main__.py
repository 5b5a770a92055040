"""`make curves`, or `python -m benchmarks.curves`: measure point after point, then write the charts and their page.

What was measured is kept in a file: a run that was broken off goes on where it was, and `--only` measures parts one
after the other.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import host, peers
from benchmarks.curves import measure, page, results
from benchmarks.curves.plan import CURVES, QUICK, WHOLE, Scale
from benchmarks.processes import BenchError, Workspace, say

NAMES = tuple(curve.name for curve in CURVES)
ROOT = peers.ROOT


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curves", description=__doc__)
    parser.add_argument("--only", action="append", choices=NAMES, help="this curve alone; may be given more than once")
    parser.add_argument("--quick", action="store_true", help="fewer points, shorter loads, fewer rounds")
    parser.add_argument("--minutes", type=float, help="begin no point that would end later (35, or 8 if quick)")
    parser.add_argument("--rounds", type=int, help="turns of each store (default: 3, or 2 if quick)")
    parser.add_argument("--seconds", type=float, help="how long each load runs (default: 1.5, or 0.8 if quick)")
    parser.add_argument("--at", action="append", type=int, help="these numbers of keys, bytes, clients ... alone")
    parser.add_argument("--results", type=Path, help="where results are kept (default: build/curves.json, or of quick)")
    parser.add_argument("--again", action="store_true", help="measure what the results have, too")
    parser.add_argument("--plot", action="store_true", help="measure nothing, write the page from the results")
    parser.add_argument("--out", type=Path, help="where the page goes (default: docs, or build if quick)")
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="where data lies; must be a real disk")
    parser.add_argument("--no-newest", action="store_true", help="leave the newest etcd out, and do not build it")
    return parser.parse_args()


def main() -> int:
    """Measure and plot. Returns 0, or 1 when something could not be measured."""
    given = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    kept = given.results or ROOT / "build" / ("curves-quick.json" if given.quick else "curves.json")
    out = given.out or ROOT / ("build" if given.quick else "docs")
    try:
        known = results.load(kept)
        left_out = [] if given.plot else _run(given, known, kept)
        written = page.write(known, out)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"Interrupted; what was measured is in {kept}. Run again to go on.", file=sys.stderr)
        return 1
    print(f"{len(known.points)} points in {kept}; wrote {written[0]} and {len(written) - 1} charts")
    for note in left_out:
        print(note, file=sys.stderr)
    return 1 if left_out else 0


@dataclass(frozen=True)
class Labelled:
    """Says progress with the point's number before it."""

    label: str

    def __call__(self, text: str) -> None:
        say(self.label + text)


def _scale(given: argparse.Namespace) -> Scale:
    scale = QUICK if given.quick else WHOLE
    asked = {name: value for name in ("minutes", "rounds", "seconds") if (value := getattr(given, name)) is not None}
    return replace(scale, **asked)


def _run(given: argparse.Namespace, known: results.Results, kept: Path) -> list[str]:
    """Measure what is wanted and not there. Returns a sentence for each point that was left out. Raises BenchError."""
    scale = _scale(given)
    compared, left_out = peers.find(not given.no_newest)
    names = {peer.name for peer in compared}
    todo = [
        (curve, x)
        for curve in given.only or NAMES
        for x in scale.points(curve)
        if (given.at is None or x in given.at)
        and (given.again or not known.has(curve, x, scale.rounds, scale.seconds, names))
    ]
    expected = sum(scale.expected_s(curve, x, len(compared)) for curve, x in todo)
    about, began = {**host.about(), "processors": str(host.busy())}, time.monotonic()
    print("; ".join(f"{name} {value}" for name, value in about.items()), file=sys.stderr)
    print(f"{len(todo)} points of {len(compared)} stores; about {expected / 60:.0f} min", file=sys.stderr)
    known.runs.append(about)
    for number, (curve, x) in enumerate(todo):
        point = f"{curve} {x:,}"
        if time.monotonic() - began + scale.expected_s(curve, x, len(compared)) > scale.minutes * 60:
            left_out.append(f"{point} was left out, since the {scale.minutes:g} minutes are over; run again to go on.")
            continue
        start = time.monotonic()
        label = f"[{number + 1}/{len(todo)}] "
        try:
            with Workspace(given.dir) as place:
                found, failed = measure.point(curve, x, compared, place, scale, Labelled(label))
        except BenchError as error:
            left_out.append(f"{point} was left out: {error}")
            continue
        finally:
            say("")
        known.add(results.Point(curve, x, scale.rounds, scale.seconds, len(known.runs) - 1, found, failed))
        left_out += [f"{point}: {peer} failed: {why}" for peer, why in failed.items()]
        known.save(kept)
        print(f"{label}{point}: {time.monotonic() - start:.0f} s", file=sys.stderr)
    return left_out


if __name__ == "__main__":
    raise SystemExit(main())
