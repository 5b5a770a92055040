"""What the cluster wants of this machine: its last placements, with a copy on disk. A placement that can't be read is
no reason to stop a unit: it stays as it was last wanted, or, when that is not known, as it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from agent.interfaces import Placement, Unreadable
from agent.records import RecordError, Records

log = logging.getLogger(__name__)


class Wanted:
    """The placements to obey, by unit, and those that can't be read."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self.placements: dict[str, Placement] = {}
        self.unreadable: dict[str, Unreadable] = {}

    def left_alone(self, unit: str) -> bool:
        """Whether nobody can say what is wanted of a unit that has a placement here."""
        return unit in self.unreadable and unit not in self.placements

    async def recall(self) -> None:
        """Go by the copy on disk until the cluster speaks."""
        try:
            self.placements = await asyncio.to_thread(self._records.load_placements)
        except RecordError as error:
            log.error("%s", error)

    async def take(self, given: Mapping[str, Placement | Unreadable]) -> set[str]:
        """Take over what the cluster says now; the units whose placement became unreadable, or readable again."""
        before = self.unreadable
        self.unreadable = {name: one for name, one in given.items() if isinstance(one, Unreadable)}
        changed = {
            name for name in before.keys() | self.unreadable.keys() if before.get(name) != self.unreadable.get(name)
        }
        for name in sorted(changed & self.unreadable.keys()):
            log.error("%s stays as it is: %s", name, self.unreadable[name].why)
        known = {name: one for name, one in given.items() if isinstance(one, Placement)}
        last = {name: one for name, one in self.placements.items() if name in self.unreadable}
        self.placements = last | known
        try:
            await asyncio.to_thread(self._records.save_placements, dict(self.placements))
        except RecordError as error:
            log.error("%s", error)
        return changed
