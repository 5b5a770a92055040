"""What a plan consists of: plain values that `commit` turns into transactions."""

from __future__ import annotations

from dataclasses import dataclass

from fleetd.registry.records import Placed, Return


@dataclass(frozen=True)
class Place:
    """Put a unit on a machine, or change what is wanted of it there."""

    placed: Placed


@dataclass(frozen=True)
class Unplace:
    """Take a unit from a machine."""

    unit: str
    machine: str
    lost: bool = False
    """The machine is thought dead; should it be back by now, this must not happen without a new look."""


@dataclass(frozen=True)
class Explain:
    """Say why a unit has no machine; '' when there is nothing to explain any more."""

    unit: str
    reason: str


@dataclass(frozen=True)
class Answer:
    """Tell a returning machine that its placements are decided."""

    answer: Return


@dataclass(frozen=True)
class Alarm:
    """Raise the alarm, or clear it with ''."""

    text: str


Decision = Place | Unplace | Explain | Answer | Alarm
Group = tuple[Decision, ...]
"""Decisions that hold together or not at all: they go into one transaction."""
