"""Unit files that nothing refers to any more are deleted. A file is written by the transaction that writes a wish for
it, also when it is there already, so that a deletion which compares its mod revision can't meet a new wish.
"""

from __future__ import annotations

from fleetd.engine.commit import Deposed
from fleetd.engine.snapshot import Snapshot
from fleetd.registry import keys
from kvstore.client import Client
from kvstore.model import MAX_TXN_OPS, Compare, Op, TxnResult

LOOK_EVERY_S = 60.0
"""A file goes when two looks in a row find it unused: who has just read a wish or a placement can still read it."""
AT_ONCE = MAX_TXN_OPS - 1
"""Files deleted after one look: to their number etcd adds the one operation inside each."""


class FileSweep:
    """Looks at a snapshot now and then; times are monotonic seconds."""

    def __init__(self, now: float) -> None:
        self.due = now + LOOK_EVERY_S
        self._unused: dict[str, int] = {}

    def look(self, snapshot: Snapshot, now: float) -> dict[str, int]:
        """The files to delete now, with the revisions that they must still have."""
        self.due = now + LOOK_EVERY_S
        before, self._unused = self._unused, _unused(snapshot)
        gone = [(digest, revision) for digest, revision in self._unused.items() if before.get(digest) == revision]
        return dict(gone[:AT_ONCE])


def _unused(snapshot: Snapshot) -> dict[str, int]:
    if snapshot.unread:
        return {}
    used = {wish.file for wish in snapshot.wishes.values()}
    used |= {placed.file for where in snapshot.placements.values() for placed in where.values()}
    return {digest: revision for digest, revision in snapshot.files.items() if digest not in used}


async def delete(client: Client, term: int, files: dict[str, int]) -> int:
    """Delete those of them that still have their revisions; how many. Raises Deposed when the term is over."""
    ops = [
        Op.txn((Compare.mod(keys.file(digest), "=", revision),), (Op.delete(keys.file(digest)),))
        for digest, revision in files.items()
    ]
    done = await client.txn([Compare.create(keys.LEADER, "=", term)], ops)
    if not done.succeeded:
        raise Deposed("The engine's leader key has changed.")
    return sum(isinstance(one, TxnResult) and one.succeeded for one in done.responses)
