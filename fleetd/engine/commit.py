"""Write decisions in batches. Every transaction compares the leader key's create revision with the term's, so a
deposed leader's write fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from fleetd.engine.decisions import Alarm, Answer, Decision, Explain, Group, Place, Unplace
from fleetd.registry import keys
from kvstore.client import Client
from kvstore.model import MAX_TXN_OPS, Compare, Op


class Deposed(Exception):
    """Another engine leads, or none does, or a machine that the plan thinks lost is back: this term is over."""


def operation(decision: Decision) -> tuple[bytes, bytes | None]:
    """The key that a decision writes, and its value, None to delete it."""
    match decision:
        case Place(placed):
            return keys.placement(placed.machine, placed.unit), placed.value()
        case Unplace(unit=unit, machine=machine):
            return keys.placement(machine, unit), None
        case Explain(unit, reason):
            return keys.reason(unit), keys.encode(reason=reason) if reason else None
        case Answer(answer):
            return keys.returning(answer.machine), answer.value()
        case Alarm(text):
            return keys.ALARM, keys.encode(text=text) if text else None


@dataclass
class Batch:
    """One transaction: what it writes, and the machines that must still be absent."""

    writes: dict[bytes, bytes | None] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)

    def compares(self, term: int) -> list[Compare]:
        """What must hold for it: the term, and that no machine which it takes units from has come back. A machine
        that boots believes its placements once it is present: a later removal would let a unit run twice."""
        gone = [Compare.create(keys.presence(machine), "=", 0) for machine in sorted(self.absent)]
        return [Compare.create(keys.LEADER, "=", term), *gone]


def batches(groups: Iterable[Group], limit: int = MAX_TXN_OPS) -> Iterator[Batch]:
    """Pack groups into transactions, in order: a group stays whole while it fits into one at all, and no key comes
    twice in one."""
    batch = Batch()
    for group in groups:
        writes = dict(operation(decision) for decision in group)
        absent = {one.machine for one in group if isinstance(one, Unplace) and one.lost}
        full = len(batch.writes) + len(writes) > limit or len(batch.absent | absent) >= limit
        if batch.writes and (full or not batch.writes.keys().isdisjoint(writes)):
            yield batch
            batch = Batch()
        while len(writes) > limit:
            head = dict(list(writes.items())[:limit])
            yield Batch(head, set(absent) if len(absent) < limit else set())
            writes = {key: value for key, value in writes.items() if key not in head}
        batch.writes |= writes
        batch.absent |= absent
    if batch.writes:
        yield batch


async def commit(client: Client, term: int, groups: Iterable[Group]) -> list[int]:
    """Write groups under a term; the revisions of the transactions. Raises Deposed when the term is over, or when a
    machine that was thought lost is back: the next term starts from what is so then."""
    revisions = []
    for batch in batches(groups):
        ops = [Op.delete(key) if value is None else Op.put(key, value) for key, value in batch.writes.items()]
        done = await client.txn(batch.compares(term), ops)
        if not done.succeeded:
            raise Deposed("The engine's leader key has changed, or a lost machine is back.")
        revisions.append(done.header.revision)
    return revisions
