"""What is kept of a container: one JSON file each, written before anything is done."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from agent.containers import rootfs
from agent.interfaces import ContainerRecord
from agent.units.docker_options import ContainerOptions, Health, Link, Mount, PublishedPort, Ulimit

FORMAT = 1
log = logging.getLogger(__name__)
_PARTS: dict[str, Any] = {"mounts": Mount, "links": Link, "ulimits": Ulimit, "ports": PublishedPort}


@dataclass(frozen=True)
class Record:
    """A container, wished and found."""

    id: str
    name: str
    image: str
    """The image's id."""
    options: ContainerOptions
    args: tuple[str, ...]
    """Entrypoint and command as they run."""
    env: tuple[str, ...]
    user: str
    directory: str
    stop_signal: str
    log_dir: str
    created: float
    unit: str = ""
    cgroup_parent: str = ""
    exposed: tuple[str, ...] = ()
    state: str = "created"
    """created, running or exited."""
    boot: str = ""
    """The boot that it was made or last started in."""
    pid: int = 0
    address: str = ""
    ports: tuple[PublishedPort, ...] = ()
    """With every host port chosen."""
    started: float = 0.0
    finished: float = 0.0
    code: int = 0
    error: str = ""
    oom_killed: bool = False
    """The kernel killed a process of its last run for want of memory."""


def goes(record: Record) -> bool:
    """Whether it is removed when it ends (`--rm`); in a unit's foreground the unit does that."""
    return record.options.remove and (not record.unit or record.options.detach)


def registered(record: Record) -> ContainerRecord:
    """What the cluster is told of a container."""
    ports = {
        f"{port.container_port}/{port.protocol}": f"{port.host_ip or '0.0.0.0'}:{port.host_port}"
        for port in record.ports
    }
    return ContainerRecord(
        record.id, record.name, record.options.image, record.unit or None, record.address, ports, record.started
    )


def left_over(found: Iterable[Record], boot: str) -> set[str]:
    """The ids of those from other boots that are to go: with `--rm`, and of a unit's unnamed ones all but the youngest,
    since no unit counts them any more."""
    gone: set[str] = set()
    units: set[str] = set()
    for record in sorted(found, key=lambda record: -record.created):
        unnamed = record.unit and not record.options.name
        if record.boot != boot and (record.options.remove or (unnamed and record.unit in units)):
            gone.add(record.id)
        elif unnamed:
            units.add(record.unit)
    return gone


class Records:
    """The records of a machine, in one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def place(self, container: str) -> Path:
        """The directory of a container."""
        return self._directory / container

    def save(self, record: Record) -> None:
        """Write it, durably; of one that goes when it ends, only so that it outlives this process."""
        place = self.place(record.id)
        place.mkdir(mode=0o711, exist_ok=True)
        fresh = place / "record.new"
        with fresh.open("w") as out:
            json.dump({"version": FORMAT, **asdict(record)}, out)
            out.flush()
            if not record.options.remove:
                os.fsync(out.fileno())
        fresh.replace(place / "record.json")

    def all(self) -> Iterator[Record]:
        """Read every record. One that a power loss cut short is removed; one that can't be read for another reason (a
        newer program's, a damaged one) is left out and stays, and the log names its file."""
        for path in self._directory.glob("*/record.json"):
            try:
                saved = json.loads(path.read_bytes())
            except (json.JSONDecodeError, UnicodeDecodeError):
                log.warning("the record of the container %s is cut short: it is removed", path.parent.name)
                try:
                    rootfs.discard(path.parent)
                except OSError as error:
                    log.error("%s can't be removed: %s", path.parent, error)
                continue
            except OSError as error:
                log.error("%s can't be read, and its container is left out: %s", path, error)
                continue
            try:
                version = saved.pop("version")
                if version > FORMAT:
                    raise ValueError(f"it has format {version}, this program reads up to {FORMAT}")
                yield _record(saved)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                log.error("%s can't be understood, and its container is left out: %s", path, _reason(error))


def _reason(error: Exception) -> str:
    return f"there is no {error}" if isinstance(error, KeyError) else str(error)


def _record(saved: dict[str, Any]) -> Record:
    given = dict(saved.pop("options"))
    health = Health(**given.pop("health"))
    for name, kind in _PARTS.items():
        given[name] = tuple(kind(**_tuples(item)) for item in given[name])
    options = replace(ContainerOptions(**_tuples(given)), health=health)
    ports = tuple(PublishedPort(**item) for item in saved.pop("ports"))
    known = {field.name for field in fields(Record)}
    return Record(options=options, ports=ports, **{key: _tuple(item) for key, item in saved.items() if key in known})


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {key: _tuple(value) for key, value in values.items()}


def _tuple(value: Any) -> Any:
    return tuple(_tuple(item) for item in value) if isinstance(value, list) else value
