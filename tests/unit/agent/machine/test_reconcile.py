"""Wanted x found -> steps, as a table; and records that survive, or say why they do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.interfaces import DesiredState, Placement
from agent.reconcile import Found, Halt, Launch, Load, SetEpoch, Step, Unload, reconcile
from agent.records import ProcessRecord, RecordError, Records, UnitRecord
from agent.units.life import State


def want(desired: DesiredState, text: str = "t", epoch: int = 1) -> dict[str, Placement]:
    return {"a": Placement("a", text, desired, epoch)}


def have(running: bool, desired: DesiredState = "launched", leaving: bool = False) -> dict[str, Found]:
    return {"a": Found("t", 1, running, leaving, desired)}


@pytest.mark.parametrize(
    ("wanted", "found", "steps"),
    [
        (want("loaded"), {}, (Load("a"),)),
        (want("launched"), {}, (Load("a"), Launch("a"))),
        (want("launched"), have(True), ()),
        (want("launched"), have(False), ()),
        (want("launched", epoch=2), have(False), (SetEpoch("a"), Launch("a"))),
        (want("launched", epoch=2), have(True), (SetEpoch("a"),)),
        (want("launched"), have(False, "loaded"), (Launch("a"),)),
        (want("loaded"), have(True), (Halt("a"),)),
        (want("loaded"), {"a": Found("t", 1, True, needed=True)}, ()),
        (want("loaded"), {"a": Found("t", 1, True)}, (Halt("a"),)),
        (want("launched", text="new"), have(True), (Unload("a"),)),
        (want("launched"), have(True, leaving=True), ()),
        ({}, have(True), (Unload("a"),)),
        ({}, have(True, leaving=True), ()),
    ],
)
def test_reconcile(wanted: dict[str, Placement], found: dict[str, Found], steps: tuple[Step, ...]) -> None:
    assert reconcile(wanted, found) == steps


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    records = Records(tmp_path / "units")
    process = ProcessRecord(3, "main", "start", 0, "/run/x", "/log/x", "abc")
    record = UnitRecord("a@1.service", "text", 7, "boot", State(sub="running", main=3, starts=(1.5,)), (process,), 5.0)
    records.save(record)
    records.save_placements(want("launched"))
    assert records.load() == ({"a@1.service": record}, {})
    assert records.load_placements() == want("launched")
    records.remove("a@1.service")
    assert records.load() == ({}, {})


def test_a_newer_or_broken_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.service.json").write_text('{"version": 99}')
    (tmp_path / "b.service.json").write_text('{"version"')
    found, complaints = Records(tmp_path).load()
    assert found == {}
    assert (
        "was written by a newer fleetd (version 99" in complaints["a.service"]
        and "b.service.json can't be read" in complaints["b.service"]
    )


def test_a_record_that_can_not_be_written_names_its_path(tmp_path: Path) -> None:
    (tmp_path / "units").write_text("a file in the way")
    with pytest.raises(RecordError, match="units"):
        Records(tmp_path / "units").save(UnitRecord("a.service", "", 1, "b"))
