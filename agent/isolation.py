"""StopWhenIsolated=: how long ago the cluster answered this machine, as the page that fleet-presence writes tells, and
what a monitor is told of it. Monitors obey by themselves (`agent/monitor/src/isolation.rs`); the supervisor ends such a
unit in its own order while fleetd lives, and has each start of it permitted by the cluster.
"""

from __future__ import annotations

import json
import math
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from agent.units.model import Unit

ANSWERED_AT = 16
"""Where the page has the CLOCK_BOOTTIME in ms of the last answer under an announced lease, little endian."""
ISOLATION_LABEL = "fleet.isolation"
LOOK_S = 0.25
"""How often units with StopWhenIsolated= are looked after; a machine without any does not look."""
REASON = "It was stopped, since the cluster had not answered this machine for too long (StopWhenIsolated=)."
"""The monitor's words in an exit record; see `isolation.rs`."""
WAITING = "It starts when the cluster confirms that it belongs here (StopWhenIsolated=)."


@dataclass(frozen=True)
class Isolation:
    """What a monitor needs to end its payload by itself."""

    page: Path
    after_ms: int
    signal: int
    stop_ms: int

    def text(self) -> str:
        """For a container's label, whose monitor is started from its record."""
        return json.dumps([str(self.page), self.after_ms, self.signal, self.stop_ms])

    @classmethod
    def read(cls, labels: Iterable[tuple[str, str]]) -> Isolation | None:
        """The label's meaning; None without one, or with one that is not ours."""
        text = dict(labels).get(ISOLATION_LABEL)
        if text is None:
            return None
        try:
            page, after, signal, stop = json.loads(text)
            return cls(Path(page), int(after), int(signal), int(stop))
        except (ValueError, TypeError):
            return None


def age(page: Path | None) -> float:
    """Seconds since the last answer; infinite when there was none, or no page."""
    if page is None:
        return math.inf
    try:
        with page.open("rb") as source:
            source.seek(ANSWERED_AT)
            (answered,) = struct.unpack("<Q", source.read(8))
    except (OSError, struct.error):
        return math.inf
    passed = time.clock_gettime(time.CLOCK_BOOTTIME) - answered / 1000
    return passed if answered else math.inf


def of(unit: Unit, page: Path | None) -> Isolation | None:
    """What the unit's monitor is told; None for a unit that may run on."""
    limit = unit.fleet.stop_when_isolated
    if limit is None or unit.service is None or page is None:
        return None
    stop = min(unit.service.timeout_stop, 1e9)
    return Isolation(page, int(limit * 1000), unit.service.kill_signal, int(stop * 1000))
