"""`make bench`, or `python -m benchmarks`: measure, print the tables, and end all that was started."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from benchmarks import host, machines, peers, stores, table
from benchmarks.processes import BenchError, Workspace, say
from benchmarks.table import Row

PARTS = ("store", "machines")
ROUNDS, QUICK_ROUNDS = 3, 2
SECONDS, QUICK_SECONDS = 5.0, 3.0
TITLES = {"store": "store", "machines": "containers and units"}
RUNS, QUICK_RUNS = 40, 20


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"what to measure: {', '.join(PARTS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help=f"cells of {QUICK_SECONDS:.0f} s, {QUICK_ROUNDS} rounds")
    parser.add_argument("--json", action="store_true", help="print JSON in place of tables")
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="where data lies; must be a real disk")
    parser.add_argument("--no-newest", action="store_true", help="leave the newest etcd out, and do not build it")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    return given


def main() -> int:
    """Measure. Returns 0, or 1 when something could not be measured."""
    given = arguments()
    wanted = given.parts or PARTS
    rounds, seconds = (QUICK_ROUNDS, QUICK_SECONDS) if given.quick else (ROUNDS, SECONDS)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    found: dict[str, list[Row]] = {part: [] for part in wanted}
    notes: list[str] = []
    about = {**host.about(), "processors": str(host.busy())}
    print(about["processors"], file=sys.stderr)
    failed = False
    try:
        with Workspace(given.dir) as place:
            if "store" in wanted:
                compared, left_out = peers.find(not given.no_newest)
                notes += left_out
                for row in stores.measure(compared, place, rounds, seconds, say):
                    found["store"].append(row)
            if "machines" in wanted:
                if why := machines.missing():
                    notes.append(why)
                else:
                    runs = QUICK_RUNS if given.quick else RUNS
                    for row in machines.measure(place, runs, say, notes.append):
                        found["machines"].append(row)
    except BenchError as error:
        failed = True
        notes.append(str(error))
    except KeyboardInterrupt:
        failed = True
        notes.append("Interrupted; what was measured until then is above.")
    say("")
    if given.json:
        print(json.dumps({"machine": about, "notes": notes, **{p: table.plain(r) for p, r in found.items()}}, indent=1))
    else:
        print("; ".join(f"{name} {value}" for name, value in about.items()))
        for part, rows in found.items():
            if rows:
                print(f"\n{table.text(TITLES[part], rows)}")
        for note in notes:
            print(f"\n{note}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
