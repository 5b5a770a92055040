"""Results are kept, found again, and told as medians, tables and charts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.curves import page, results
from benchmarks.curves.plan import CURVES, QUICK, WHOLE, Scale, count, shown, size
from benchmarks.curves.results import Point, Results
from benchmarks.processes import BenchError

PUTS = {"rate": {"ours": [90.0, 10.0, 20.0], "etcd 3.4": [4.0, 5.0]}}
POINT = Point("clients", 64, 3, 2.0, 0, {"put": PUTS})
RUN = {"date": "today", "commit": "abc", "load": "0.01"}


def test_the_median_of_the_rounds_is_told_by_peer() -> None:
    assert POINT.median("put", "rate") == {"ours": 20.0, "etcd 3.4": 4.5}
    assert POINT.median("put", "p99") == {}
    assert POINT.median("get", "rate") == {}


def test_results_come_back_from_their_file(tmp_path: Path) -> None:
    path = tmp_path / "build/curves.json"
    assert results.load(path) == Results()
    kept = Results([RUN], [POINT])
    kept.save(path)
    assert results.load(path) == kept
    assert [entry.name for entry in path.parent.iterdir()] == ["curves.json"]


@pytest.mark.parametrize("text", ["", "{}", '{"format": 0, "runs": [], "points": []}', '{"format":1,"runs":[]}', "[]"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(BenchError, match="--results"):
        results.load(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("x", "rounds", "seconds", "peers", "there"),
    [
        (64, 3, 2.0, {"ours", "etcd 3.4"}, True),
        (64, 2, 1.0, {"ours"}, True),
        (64, 4, 2.0, {"ours"}, False),
        (64, 3, 2.5, {"ours"}, False),
        (64, 3, 2.0, {"ours", "etcd 3.7"}, False),
        (65, 3, 2.0, {"ours"}, False),
    ],
)
def test_a_point_need_not_be_measured_again_if_it_was_as_well(
    x: int, rounds: int, seconds: float, peers: set[str], there: bool
) -> None:
    assert Results([RUN], [POINT]).has("clients", x, rounds, seconds, peers) is there


def test_a_point_at_which_a_store_failed_is_measured_again() -> None:
    failed = replace(POINT, failed={"etcd 3.4": "get: too slow"})
    assert not Results([RUN], [failed]).has("clients", 64, 3, 2.0, {"ours"})


def test_a_new_point_takes_the_place_of_the_old_one() -> None:
    kept = Results([RUN], [POINT, replace(POINT, x=1), replace(POINT, curve="keys")])
    kept.add(replace(POINT, rounds=9))
    assert [(point.x, point.rounds) for point in kept.of("clients")] == [(1, 3), (64, 9)]
    assert len(kept.of("keys")) == 1


def test_the_page_tells_machine_figures_and_ratios(tmp_path: Path) -> None:
    old = {**RUN, "commit": "of nothing that is left"}
    failed = {"etcd 3.4": "get: too slow"}
    kept = Results([old, RUN], [replace(POINT, x=1, run=1), replace(POINT, run=1, failed=failed)])
    written = page.write(kept, tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in written] == [
        "performance.md",
        "performance/clients-put-rate.svg",
    ]
    text = written[0].read_text()
    assert "- clients (3 rounds of 2 s): date today; commit abc; load 0.01" in text
    assert "of nothing that is left" not in text
    assert "](performance/clients-put-rate.svg)" in text
    assert "| clients | 1/s: ours | etcd 3.4 | ratio |\n|---:|---:|---:|---:|\n| 1 | 20.0 | 4.50 | 4.44x |" in text
    assert "- etcd 3.4 failed at 64 clients, get: too slow" in text
    assert "## Keys" not in text
    assert ">etcd 3.4</text>" in written[1].read_text()


def test_a_peer_that_was_not_measured_at_a_point_leaves_a_gap() -> None:
    alone = Point("clients", 1, 3, 2.0, 0, {"put": {"rate": {"ours": [7.0]}}})
    curve = next(curve for curve in CURVES if curve.name == "clients")
    without = Point("clients", 2, 3, 2.0, 0, {"put": {"rate": {"etcd 3.4": [7.0]}}})
    kept = Results([RUN], [POINT, without, alone])
    assert "| 2 | - | 7.00 | - |" in page.table(kept, curve, curve.plots[0])
    assert "| 1 | 7.00 | - | - |" in page.table(kept, curve, curve.plots[0])
    assert [(line.name, list(line.points)) for line in page.lines_of(kept, curve, curve.plots[0])] == [
        ("ours", [(1, 7.0), (64, 20.0)]),
        ("etcd 3.4", [(2, 7.0), (64, 4.5)]),
    ]


@pytest.mark.parametrize(
    ("value", "counted", "sized"),
    [(1, "1", "1 B"), (64, "64", "64 B"), (1_000, "1k", "1000 B"), (1_000_000, "1M", "976.562 KiB")],
)
def test_numbers_are_written_short(value: float, counted: str, sized: str) -> None:
    assert (count(value), size(value)) == (counted, sized)


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.2, "0.2"), (0.05, "0.05"), (2.5, "2.5"), (100, "100"), (2_500, "2.5k")]
)
def test_ticks_are_written_short(value: float, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize("scale", [WHOLE, QUICK])
def test_a_run_is_expected_to_end_in_its_time(scale: Scale) -> None:
    seconds = sum(scale.expected_s(curve.name, x, 3) for curve in CURVES for x in scale.points(curve.name))
    assert 0.4 < seconds / 60 / scale.minutes < 0.9
