"""The mass-death brake: when much of the cluster seems to die at once, or the store was silent, nothing moves for a
while, since it is likelier that we can't see than that all those machines are dead. Pure; times are monotonic seconds.
"""

from __future__ import annotations

DEATH_WINDOW_TTLS = 2
HOLD_TTLS = 3
SILENCE_TTLS = 2
LEAST_MACHINES = 3
"""In a smaller cluster the brake for deaths is off: half of two is one machine."""


class Brake:
    """Says from when units of lost machines may move."""

    def __init__(self, ttl: float) -> None:
        self._ttl = ttl
        self._lost: dict[str, float] = {}
        self._hold_until = 0.0
        self._text = ""

    @property
    def alarm(self) -> str:
        """Why nothing moves, or ''."""
        return self._text

    @property
    def hold_until(self) -> float:
        """Nothing may move before this time."""
        return self._hold_until

    def lost(self, machine: str, now: float, holders: int) -> None:
        """A machine has lost its presence; `holders` machines hold a presence or a placement, this one included."""
        self._lost[machine] = now
        recent = [m for m, at in self._lost.items() if now - at <= DEATH_WINDOW_TTLS * self._ttl]
        if holders >= LEAST_MACHINES and 2 * len(recent) > holders:
            self._hold(now, f"{len(recent)} of {holders} machines were lost within {DEATH_WINDOW_TTLS * self._ttl:g} s")

    def back(self, machine: str) -> None:
        """A machine is present again."""
        self._lost.pop(machine, None)

    def silence(self, now: float) -> None:
        """The store answered again after a silence of more than 2 TTL."""
        self._hold(
            now, f"the store gave no answer for over {SILENCE_TTLS * self._ttl:g} s, or this machine has just booted"
        )

    def _hold(self, now: float, text: str) -> None:
        self._hold_until = max(self._hold_until, now + HOLD_TTLS * self._ttl)
        self._text = f"Units stay where they are for {HOLD_TTLS * self._ttl:g} s: {text}."

    def release(self, now: float) -> bool:
        """Let go when the time is over; True when an alarm ends with it."""
        if self._text and now >= self._hold_until:
            self._text = ""
            return True
        return False
