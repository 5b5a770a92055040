"""Write decisions in batches. Every transaction compares the leader key's create revision with the term's, so a
deposed leader's write fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fleetd.engine.decisions import Alarm, Answer, Decision, Explain, Group, Place, Unplace
from fleetd.registry import keys
from kvstore.client import Client
from kvstore.model import Compare, Op

BATCH = 128
"""Operations in one transaction; etcd's own limit."""


class Deposed(Exception):
    """Another engine leads, or none does: this term is over."""


def operation(decision: Decision) -> tuple[bytes, bytes | None]:
    """The key that a decision writes, and its value, None to delete it."""
    match decision:
        case Place(placed):
            return keys.placement(placed.machine, placed.unit), placed.value()
        case Unplace(unit, machine):
            return keys.placement(machine, unit), None
        case Explain(unit, reason):
            return keys.reason(unit), keys.encode(reason=reason) if reason else None
        case Answer(answer):
            return keys.returning(answer.machine), answer.value()
        case Alarm(text):
            return keys.ALARM, keys.encode(text=text) if text else None


def batches(groups: Iterable[Group], limit: int = BATCH) -> Iterator[dict[bytes, bytes | None]]:
    """Pack groups into transactions, in order: a group stays whole while it fits into one at all, and no key comes
    twice in one."""
    batch: dict[bytes, bytes | None] = {}
    for group in groups:
        writes = dict(operation(decision) for decision in group)
        if batch and (len(batch) + len(writes) > limit or not batch.keys().isdisjoint(writes)):
            yield batch
            batch = {}
        while len(writes) > limit:
            head = dict(list(writes.items())[:limit])
            yield head
            writes = {key: value for key, value in writes.items() if key not in head}
        batch |= writes
    if batch:
        yield batch


async def commit(client: Client, term: int, groups: Iterable[Group]) -> list[int]:
    """Write groups under a term; the revisions of the transactions. Raises Deposed when the term is over."""
    revisions = []
    for batch in batches(groups):
        ops = [Op.delete(key) if value is None else Op.put(key, value) for key, value in batch.items()]
        done = await client.txn([Compare.create(keys.LEADER, "=", term)], ops)
        if not done.succeeded:
            raise Deposed("The engine's leader key has changed.")
        revisions.append(done.header.revision)
    return revisions
