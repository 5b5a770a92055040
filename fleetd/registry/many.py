"""Change what is wanted of many units in few transactions: one listing, then as many at once as the store takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fleetd.registry import keys
from fleetd.registry.records import Desired, Wish
from fleetd.registry.registry import Registry
from kvstore.model import MAX_TXN_OPS, Compare, Op

BATCH_UNITS = MAX_TXN_OPS // 2
"""A unit takes two puts."""
BATCH_BYTES = 1_000_000
"""Of files' records in a transaction; one that is larger goes alone."""


@dataclass(frozen=True)
class Wanted:
    """What is wanted of a unit. Without a text it must be there; with `replace` the text takes the place of its own."""

    name: str
    desired: Desired
    text: str | None = None
    replace: bool = False


class Missing(Exception):
    """Units that are not there; nothing was changed."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        super().__init__(f"no such unit: {', '.join(names)}")


def batches(wanted: Iterable[Wanted]) -> Iterator[list[Wanted]]:
    """Cut into what fits a transaction; a text counts once."""
    batch: list[Wanted] = []
    texts: set[str] = set()
    size = 0
    for item in wanted:
        more = 0 if item.text is None or item.text in texts else len(keys.encode(text=item.text))
        if batch and (len(batch) == BATCH_UNITS or size + more > BATCH_BYTES):
            yield batch
            batch, texts, size = [], set(), 0
            more = 0 if item.text is None else len(keys.encode(text=item.text))
        batch.append(item)
        if item.text is not None:
            texts.add(item.text)
        size += more
    if batch:
        yield batch


def _operations(item: Wanted, before: Wish | None) -> tuple[list[Op], list[Compare]]:
    """What to write for one unit; nothing when it is as wanted."""
    replaced = before is None or (item.replace and item.text is not None)
    digest = keys.file_hash(item.text or "") if before is None or replaced else before.file
    wish = Wish(item.name, digest, item.desired)
    if before is not None and (before.file, before.desired) == (wish.file, wish.desired):
        return [], []
    key = keys.unit(item.name)
    ops = [Op.put(key, wish.value())]
    if replaced:
        ops.append(Op.put(keys.file(digest), keys.encode(text=item.text or "")))
    return ops, [Compare.mod(key, "=", before.revision if before is not None else 0)]


async def write_many(registry: Registry, wanted: list[Wanted]) -> None:
    """Write all; a batch that lost a race is written unit by unit. Raises Missing, StoreError, RegistryError."""
    wanted = list({item.name: item for item in wanted}.values())
    known = {wish.name: wish for wish in await registry.units()}
    if missing := [item.name for item in wanted if item.text is None and item.name not in known]:
        raise Missing(missing)
    for batch in batches(wanted):
        ops: dict[bytes, Op] = {}
        compares: list[Compare] = []
        for item in batch:
            new, same = _operations(item, known.get(item.name))
            ops |= {op.key: op for op in new}
            compares += same
        if ops and not (await registry.client.txn(compares, list(ops.values()))).succeeded:
            for item in batch:
                await _write_one(registry, item)


async def _write_one(registry: Registry, item: Wanted) -> None:
    if item.text is not None and item.replace:
        await registry.replace_unit(item.name, item.text, item.desired)
    elif item.text is None or not await registry.create_unit(item.name, item.text, item.desired):
        await registry.set_desired(item.name, item.desired)
