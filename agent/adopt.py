"""What a starting fleetd finds of its units: records of this boot go on, those of another boot are at rest.

The runner reconnects to the monitors of the first kind; monitors that nobody knows are ended.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from agent.monitor import link as monitors
from agent.records import Records, UnitRecord
from agent.units.life import State

SWEEP_TIMEOUT_S = 5.0

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


def find(records: Records, boot: str) -> Findings:
    """Read the records; what can't be read is logged and left."""
    found, complaints = records.load()
    for complaint in complaints:
        log.error("%s", complaint)
    return sort_records(found, boot)


async def sweep(run_dir: Path, known: Collection[str]) -> None:
    """End the monitors that no record knows: their payload is killed if it lives, their run directories go."""
    for path in await asyncio.to_thread(lambda: sorted(run_dir.iterdir()) if run_dir.is_dir() else []):
        if str(path) in known:
            continue
        try:
            link = await monitors.connect(path)
            if monitors.read_exit(path) is None:
                log.warning("%s is in no record; what it runs is killed", path.name)
                await link.kill()
                async with asyncio.timeout(SWEEP_TIMEOUT_S):
                    await link.wait()
            await link.forget()
        except (monitors.MonitorError, TimeoutError) as error:
            log.info("%s: %s", path.name, error)
        await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
