"""Wanted x found -> steps: what an agent must do so that its units are what the cluster placed here. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent.interfaces import DesiredState, Placement


@dataclass(frozen=True)
class Found:
    """A unit that is here."""

    text: str
    epoch: int
    running: bool
    """It runs, starts, or waits for a restart."""
    leaving: bool = False
    """It is being stopped in order to be removed."""
    desired: DesiredState = "loaded"
    needed: bool = False
    """Another unit here that runs has pulled it in."""


@dataclass(frozen=True)
class Load:
    """Take a unit in, at rest."""

    unit: str


@dataclass(frozen=True)
class Launch:
    """Start it."""

    unit: str


@dataclass(frozen=True)
class Halt:
    """Stop it; it stays loaded."""

    unit: str


@dataclass(frozen=True)
class Unload:
    """Stop it and remove it."""

    unit: str


@dataclass(frozen=True)
class SetEpoch:
    """The same unit under a newer decision: nothing of it changes but the epoch that it reports."""

    unit: str


Step = Load | Launch | Halt | Unload | SetEpoch


def reconcile(wanted: Mapping[str, Placement], found: Mapping[str, Found]) -> tuple[Step, ...]:
    """The steps from what is found to what is wanted: removals first, so that conflicts and names are free.

    A unit with another text is unloaded now; it is loaded anew by the next round, when it is gone. A unit that ran and
    ended by itself is not started again, unless a newer decision wants it launched.
    """
    gone: list[Step] = []
    steps: list[Step] = []
    for name, here in sorted(found.items()):
        place = wanted.get(name)
        if here.leaving:
            continue
        if place is None or place.text != here.text:
            gone.append(Unload(name))
    for name, place in sorted(wanted.items()):
        existing = found.get(name)
        if existing is None:
            steps.append(Load(name))
            if place.desired == "launched":
                steps.append(Launch(name))
            continue
        if existing.leaving or existing.text != place.text:
            continue
        newer = place.epoch != existing.epoch
        if newer:
            steps.append(SetEpoch(name))
        if place.desired == "launched":
            if not existing.running and (newer or existing.desired != "launched"):
                steps.append(Launch(name))
        elif existing.running and (existing.desired == "launched" or not existing.needed):
            steps.append(Halt(name))
    return (*gone, *steps)
