"""The records under the cluster's keys as frozen values, and their translation from and to JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from agent.interfaces import ContainerRecord, DesiredState, UnitState
from fleetd.registry import keys

Desired = Literal["inactive", "loaded", "launched"]
DESIRED: tuple[Desired, ...] = ("inactive", "loaded", "launched")
RUNNING = frozenset({"active", "activating", "reloading", "deactivating"})
"""The ACTIVE words of a unit that has processes, or is about to."""
LEASE_TTL_S = 3
"""Of each machine's lease, and of the engine's own."""


def desired_state(text: str) -> Desired:
    """Read a desired state; any other word is a RegistryError."""
    for known in DESIRED:
        if text == known:
            return known
    raise keys.RegistryError(f"'{text}' is not a desired state; use one of {', '.join(DESIRED)}.")


@dataclass(frozen=True)
class Wish:
    """What users want of a unit: which file, and in which state."""

    name: str
    file: str
    desired: Desired
    revision: int = 0

    @classmethod
    def read(cls, name: str, key: bytes, value: bytes, revision: int = 0) -> Wish:
        record = keys.decode(key, value)
        return cls(name, str(record["file"]), desired_state(str(record["desired"])), revision)

    def value(self) -> bytes:
        return keys.encode(file=self.file, desired=self.desired)


@dataclass(frozen=True)
class Placed:
    """A placement: a unit that the engine wants on a machine."""

    unit: str
    machine: str
    file: str
    desired: DesiredState
    epoch: int = 0

    @classmethod
    def read(cls, machine: str, unit: str, key: bytes, value: bytes, revision: int = 0) -> Placed:
        record = keys.decode(key, value)
        desired = desired_state(str(record["desired"]))
        if desired == "inactive":
            raise keys.RegistryError(f"The placement of {unit} on {machine} has the state 'inactive'.")
        return cls(unit, machine, str(record["file"]), desired, revision)

    def value(self) -> bytes:
        return keys.encode(file=self.file, desired=self.desired)


@dataclass(frozen=True)
class Presence:
    """A machine that lives now, as long as its lease does."""

    machine: str
    boot: str
    address: str
    lease: int = 0

    @classmethod
    def read(cls, machine: str, key: bytes, value: bytes, lease: int = 0) -> Presence:
        record = keys.decode(key, value)
        return cls(machine, str(record.get("boot", "")), str(record.get("address", "")), lease)

    def value(self) -> bytes:
        return keys.encode(boot=self.boot, address=self.address)


@dataclass(frozen=True)
class Machine:
    """What is known of a machine also while it is off."""

    id: str
    address: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    boot: str = ""
    role: str = ""

    @classmethod
    def read(cls, machine: str, key: bytes, value: bytes) -> Machine:
        record = keys.decode(key, value)
        return cls(
            machine,
            str(record.get("address", "")),
            keys.text_map(record.get("metadata")),
            str(record.get("boot", "")),
            str(record.get("role", "")),
        )

    def value(self) -> bytes:
        return keys.encode(address=self.address, metadata=dict(self.metadata), boot=self.boot, role=self.role)


@dataclass(frozen=True)
class Return:
    """A machine's question after it lost its lease (`asking`: unit -> epoch of what it runs), or the answer."""

    machine: str
    lease: int
    asking: Mapping[str, int] | None
    """None once the engine has answered."""

    @classmethod
    def read(cls, machine: str, key: bytes, value: bytes) -> Return:
        record = keys.decode(key, value)
        asking = record.get("asking")
        units: dict[str, int] | None = None
        if isinstance(asking, Mapping):
            epochs = keys.Record(key, asking)
            units = {unit: epochs.number(unit) for unit in epochs}
        return cls(machine, record.number("lease", 0), units)

    def value(self) -> bytes:
        return keys.encode(lease=self.lease, asking=None if self.asking is None else dict(self.asking))


def state_value(state: UnitState) -> bytes:
    """The record of a unit's state on a machine."""
    fields = asdict(state)
    del fields["unit"]
    return keys.encode(**fields)


def read_state(unit: str, key: bytes, value: bytes) -> UnitState:
    """Read the record of a unit's state."""
    record: dict[str, Any] = keys.decode(key, value)
    status, pid = record.get("exit_status"), record.get("main_pid")
    return UnitState(
        unit=unit,
        epoch=int(record.get("epoch", 0)),
        load=str(record.get("load", "")),
        active=str(record.get("active", "")),
        sub=str(record.get("sub", "")),
        result=str(record.get("result", "success")),
        exit_status=None if status is None else int(status),
        main_pid=None if pid is None else int(pid),
        since=float(record.get("since", 0.0)),
        why=str(record.get("why", "")),
    )


def container_value(container: ContainerRecord) -> bytes:
    """The record of a running container."""
    return keys.encode(
        name=container.name,
        image=container.image,
        unit=container.unit,
        address=container.address,
        ports=dict(container.ports),
        started=container.started,
    )
