"""Starts take turns on a machine: a few are under way, the others wait. Hundreds at once would end no sooner, and would
keep fleetd from its other work, the renewal of its engine's lease first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

STARTS_AT_ONCE = 4
"""Fewer than `asyncio.to_thread` has threads: what is saved meanwhile needs some."""
TURN_S = 20.0
"""After this long the next may start: what hangs holds up nobody but itself."""


class Turns:
    """Those of one machine, in the order in which they were asked for."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(STARTS_AT_ONCE)

    @property
    def taken(self) -> bool:
        """Whether the next has to wait."""
        return self._free.locked()

    async def take(self) -> Callable[[], None]:
        """Wait for a turn; answer what ends it."""
        await self._free.acquire()
        held = True

        def end() -> None:
            nonlocal held
            if held:
                held = False
                late.cancel()
                self._free.release()

        late = asyncio.get_running_loop().call_later(TURN_S, end)
        return end
