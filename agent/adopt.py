"""What a starting fleetd finds of its units: records of this boot go on, those of another boot are at rest.

The runner reconnects to the monitors of the first kind; monitors that nobody knows are ended.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from agent.cgroups import Cgroup, CgroupError
from agent.interfaces import Placement
from agent.monitor import link as monitors
from agent.records import UnitRecord
from agent.unit_runner import Site, drop_container
from agent.units.errors import UnitError
from agent.units.life import State
from agent.units.names import Host
from agent.units.spec import parse_unit

SWEEP_TIMEOUT_S = 5.0
LOOK_S = 2.0
"""How often is looked whether a unit without a readable record still runs."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Findings:
    """Records to go on with, and those that only tell what was here before a reboot."""

    alive: Mapping[str, UnitRecord]
    rested: Mapping[str, UnitRecord]
    unread: Mapping[str, str] = field(default_factory=dict)
    """Units that run something while their record can't be read, and why not: it is left alone."""


def sort_records(found: Mapping[str, UnitRecord], boot: str) -> Findings:
    """Tell records of this boot from older ones, whose processes are gone with their boot."""
    alive = {name: record for name, record in found.items() if record.boot == boot}
    rested = {
        name: replace(record, boot=boot, state=State(), processes=(), reason="")
        for name, record in found.items()
        if record.boot != boot
    }
    return Findings(alive, rested)


def find(site: Site) -> Findings:
    """Read the records. One that can't be read is logged, and set aside when its unit runs nothing."""
    found, complaints = site.records.load()
    unread = {}
    for unit, complaint in complaints.items():
        log.error("%s", complaint)
        if _processes(site, unit):
            unread[unit] = f"What it runs is left alone until it is stopped, since its record is lost: {complaint}"
        else:
            site.records.set_aside(unit)
    return replace(sort_records(found, site.boot), unread=unread)


async def forget(site: Site, rested: dict[str, UnitRecord], wanted: Collection[str]) -> None:
    """Forget those units of an earlier boot that do not belong here any more, with the containers that they left."""
    for name in [name for name in rested if name not in wanted]:
        await drop_container(site.containers, rested.pop(name).last_container)
        try:
            await asyncio.to_thread(site.records.remove, name)
        except OSError as error:  # the next fleetd tries again
            log.error("the record of %s, which is not here any more, can't be removed: %s", name, error)


def _processes(site: Site, unit: str) -> frozenset[int]:
    """Those that a unit runs, without their monitors."""
    group = Cgroup(unit, layout=site.layout, root=site.cgroup_root)
    return group.child("payload").procs() | group.child("control").procs()


async def lives(site: Site, unit: str) -> bool:
    """Whether a unit runs anything."""
    return bool(await asyncio.to_thread(_processes, site, unit))


async def watch(site: Site, unread: Collection[str], ended: Callable[[], None]) -> None:
    """Call `ended` as long as one of these runs nothing any more; return when there are none."""
    while unread:
        await asyncio.sleep(LOOK_S)
        if not all([await lives(site, unit) for unit in tuple(unread)]):
            ended()


async def end(site: Site, unit: str) -> bool:
    """End all that a unit without a readable record runs, and set the record aside. False: something survives."""
    cgroup = Cgroup(unit, layout=site.layout, root=site.cgroup_root)
    try:
        await asyncio.to_thread(cgroup.kill)
        await asyncio.to_thread(site.records.set_aside, unit)
        await asyncio.to_thread(cgroup.remove)
    except (CgroupError, OSError) as error:
        log.error("%s: %s", unit, error)
        return False
    for path in await asyncio.to_thread(lambda: [one for one in site.run_dir.iterdir() if _unit_of(one) == unit]):
        await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
    return True


def _unit_of(run_dir: Path) -> str:
    return run_dir.name.rpartition(".")[0]


async def sweep(run_dir: Path, known: Collection[str], unread: Collection[str] = ()) -> None:
    """End the monitors that no record knows: their payload is killed if it lives, their run directories go. Those of
    units in `unread` stay."""
    for path in await asyncio.to_thread(lambda: sorted(run_dir.iterdir()) if run_dir.is_dir() else []):
        if str(path) in known or _unit_of(path) in unread:
            continue
        try:
            link = await monitors.connect(path)
            if monitors.read_exit(path) is None:
                log.warning("%s is in no record; what it runs is killed", path.name)
                await link.kill()
                async with asyncio.timeout(SWEEP_TIMEOUT_S):
                    await link.wait()
            await link.forget()
        except monitors.MonitorSilent as error:
            log.warning("%s is in no record and is left for now: %s", path.name, error)
            continue
        except (monitors.MonitorError, TimeoutError) as error:
            log.info("%s: %s", path.name, error)
        await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)


def runs_when_isolated(place: Placement, host: Host) -> bool:
    """Whether a placement is obeyed before the cluster has spoken (RunWhenIsolated=)."""
    try:
        return parse_unit(place.unit, place.text, host=host).fleet.run_when_isolated
    except UnitError:
        return False
