"""What an agent needs of the cluster that it belongs to, and the values that cross that border.

The agent knows no store and no key names: `fleetd/registry` implements :class:`Cluster`. All values are frozen.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

DesiredState = Literal["loaded", "launched"]


@dataclass(frozen=True)
class Placement:
    """A unit that the cluster wants on this machine."""

    unit: str
    text: str
    desired: DesiredState
    epoch: int
    """Revision of the transaction that decided it; a larger one is a newer decision."""


@dataclass(frozen=True)
class Unreadable:
    """A unit that the cluster has placed here in words that this program can't read: nothing is done with it."""

    unit: str
    epoch: int
    why: str
    """A sentence."""


@dataclass(frozen=True)
class UnitState:
    """What a unit is doing here, in systemd's words."""

    unit: str
    epoch: int
    load: str
    active: str
    sub: str
    result: str = "success"
    """systemd's Result= (success, exit-code, signal, timeout, start-limit-hit, monitor-lost ...)."""
    exit_status: int | None = None
    main_pid: int | None = None
    since: float = 0.0
    """Unix seconds of the last change of `active`."""
    why: str = ""
    """A sentence for the person who asks why it does not run; empty when it does."""


@dataclass(frozen=True)
class ContainerRecord:
    """A container that runs here, as the cluster registers it."""

    id: str
    name: str
    image: str
    unit: str | None
    address: str
    ports: Mapping[str, str] = field(default_factory=dict)
    """`5000/tcp` -> `0.0.0.0:49155`."""
    started: float = 0.0


class Cluster(Protocol):
    """The agent's only view of the cluster."""

    def placements(self) -> AsyncIterator[Mapping[str, Placement | Unreadable]]:
        """Yield the whole set for this machine, first as it is now, then after every change. Never ends by itself:
        while the cluster can't be asked it yields nothing, and the agent keeps to the last set."""
        ...

    async def report_units(self, changed: Sequence[UnitState], gone: Sequence[str]) -> None:
        """Publish unit states; the newest per unit wins. Returns at once; sending comes later."""
        ...

    async def confirm(self, unit: str) -> bool:
        """Whether the unit is placed here now, by the cluster's own word; False also when it can't be asked, or
        thinks that this machine is dead."""
        ...

    async def report_containers(self, changed: Sequence[ContainerRecord], gone: Sequence[str]) -> None:
        """Publish running containers; `gone` holds ids."""
        ...
