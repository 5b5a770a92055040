"""What a starting fleetd finds of its units: records of this boot go on, those of another boot are at rest.

It decides; the runner reconnects to the monitors.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from agent.records import Records, UnitRecord
from agent.units.life import State

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Findings:
    """Records to go on with, and those that only tell what was here before a reboot."""

    alive: Mapping[str, UnitRecord]
    rested: Mapping[str, UnitRecord]


def sort_records(found: Mapping[str, UnitRecord], boot: str) -> Findings:
    """Tell records of this boot from older ones, whose processes are gone with their boot."""
    alive = {name: record for name, record in found.items() if record.boot == boot}
    rested = {
        name: replace(record, boot=boot, state=State(), processes=(), reason="")
        for name, record in found.items()
        if record.boot != boot
    }
    return Findings(alive, rested)


def find(records: Records, run_dir: Path, boot: str) -> Findings:
    """Read the records; run directories of monitors that no record knows are removed once their monitor is gone."""
    found, complaints = records.load()
    for complaint in complaints:
        log.error("%s", complaint)
    findings = sort_records(found, boot)
    known = {process.run_dir for record in findings.alive.values() for process in record.processes}
    if run_dir.is_dir():
        for path in run_dir.iterdir():
            ended = (path / "exit.json").exists() or not (path / "control").exists()
            if str(path) not in known and ended:
                shutil.rmtree(path, ignore_errors=True)
    return findings
