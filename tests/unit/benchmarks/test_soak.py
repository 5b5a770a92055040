"""A soak tells memory that grows from memory that is flat, and runs beside chores."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import soak
from benchmarks.cluster import Sample
from benchmarks.peers import ours

MB = 1e6
TRIES = 4


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        ([10 * MB] * 10 + [90 * MB] * 30, True),
        ([90 * MB] * 30 + [104 * MB] * 10, True),
        ([90 * MB] * 20 + [120 * MB] * 20, False),
        ([90 * MB] * 28 + [130 * MB] * 12, False),
        ([50 * MB + at * MB for at in range(120)], False),
        ([10 * MB] * 39 + [900 * MB], True),
        ([1.0, 2.0, 3.0], False),
        ([], False),
    ],
)
def test_memory_is_flat_if_its_last_quarter_is_like_its_second(memory: list[float], expected: bool) -> None:
    assert soak.flat(memory)[0] is expected


@pytest.mark.parametrize(
    ("seconds", "expected"), [(150.0, [60.0, 60.0, 30.0]), (120.4, [60.0, 60.0]), (5.0, [5.0]), (0.5, [0.5])]
)
def test_a_time_is_cut_into_minutes(seconds: float, expected: list[float]) -> None:
    assert soak.stretches(seconds) == expected


def test_the_verdict_tells_the_worst_minute() -> None:
    minutes = [soak.Minute(Sample(1.0, 1.0, 2.0, slow, 10 * slow, 0.0, 0.0), [40 * MB] * 4) for slow in (3.0, 9.0, 4.0)]
    assert soak.verdict("ours", minutes) == (
        True,
        "ours: memory was flat (40.0 MB in the second quarter, 40.0 in the last); p99.9 of a minute: "
        "median 4.00 ms, worst 9.00; the slowest call of all 90.0",
    )


def test_a_soak_compacts_and_backs_up_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {
        **{"KEYS": 500, "KEPT_REVISIONS": 100, "TRIAL_S": 0.2, "MINUTE_S": 3.0},
        **{"MEMORY_EVERY_S": 0.05, "CHORES_EVERY_S": 0.05, "COMPACT_EVERY_S": 0.2, "BACKUP_EVERY_S": 0.4},
    }.items():
        monkeypatch.setattr(soak, name, value)
    for turn in range(TRIES):  # a busy machine may not come up to the rate
        place = tmp_path / str(turn)
        place.mkdir()
        capsys.readouterr()
        rate, minutes = soak.soak(ours(), place, 6.0, 50.0)
        rates = [rate, *(round(minute.sample.rate, -1) for minute in minutes)]
        if rates == [50.0] * 3:
            break
    assert rates == [50.0] * 3
    assert all(minute.memory and min(minute.memory) > MB for minute in minutes)
    told = capsys.readouterr().out.split()
    assert int(told[told.index("compactions,") - 1]) > 0
    assert int(told[told.index("backups") - 1]) > 0
    assert (place / "backup.db").stat().st_size > 0
