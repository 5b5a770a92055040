"""kvctl's verbs on keys: put get del watch txn."""

from __future__ import annotations

import re
import shlex
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.kvctl import shape
from cli.kvctl.session import BAD_ARGUMENTS, flags, number, run, show
from cli.output import fail

if TYPE_CHECKING:
    from kvstore.client import Client
    from kvstore.model import Compare, KeyValue, Op

Prefix = Annotated[bool, typer.Option("--prefix", help="All keys that begin with KEY.")]
FromKey = Annotated[bool, typer.Option("--from-key", help="All keys from KEY on.")]
PrevKv = Annotated[bool, typer.Option("--prev-kv", help="Say what was there before.")]
RangeEnd = Annotated[str, typer.Argument(metavar="[RANGE_END]", show_default=False)]


def text(data: bytes) -> str:
    """Bytes for a terminal or a pipe, unharmed."""
    return data.decode(errors="surrogateescape")


def raw(word: str) -> bytes:
    """An argument as bytes, unharmed."""
    return word.encode(errors="surrogateescape")


def span(key: str, end: str, prefix: bool, from_key: bool) -> tuple[bytes, bytes]:
    """Key and range end of a command."""
    from kvstore.client import prefix_end

    if ((prefix or from_key) and end) or (prefix and from_key):
        fail("Give only one of RANGE_END, --prefix and --from-key.", BAD_ARGUMENTS)
    first = raw(key)
    if prefix:
        return first or b"\0", prefix_end(first)
    if from_key:
        return first or b"\0", b"\0"
    return first, raw(end)


def lines(kvs: tuple[KeyValue, ...] | list[KeyValue]) -> str:
    """Keys and values, a line each."""
    return "\n".join(f"{text(kv.key)}\n{text(kv.value)}" for kv in kvs)


def words(result: Any) -> str:
    """A result of put, get, del or txn in words."""
    from kvstore.model import DeleteResult, PutResult, RangeResult

    match result:
        case PutResult(_, prev):
            return "OK" if prev is None else "OK\n" + lines([prev])
        case RangeResult(_, kvs):
            return lines(kvs)
        case DeleteResult(_, deleted, prev):
            return str(deleted) + ("\n" + lines(prev) if prev else "")
    parts = ["SUCCESS" if result.succeeded else "FAILURE"]
    return "\n\n".join([*parts, *(words(one) for one in result.responses)])


def put(
    key: str,
    value: Annotated[str | None, typer.Argument(help="Read from standard input when left out.")] = None,
    lease: Annotated[str, typer.Option(help="A lease, in hex, that the key ends with.")] = "0",
    prev_kv: PrevKv = False,
    ignore_value: Annotated[bool, typer.Option("--ignore-value", help="Keep the value.")] = False,
    ignore_lease: Annotated[bool, typer.Option("--ignore-lease", help="Keep the lease.")] = False,
) -> None:
    """Set a key."""
    data = raw(value) if value is not None else b"" if ignore_value else sys.stdin.buffer.read()
    held = number(lease)
    options = {"prev_kv": prev_kv, "ignore_value": ignore_value, "ignore_lease": ignore_lease}
    result = run(lambda client: client.put(raw(key), data, lease=held, **options))
    show(shape.result(result), words(result))


def get(
    key: str,
    range_end: RangeEnd = "",
    prefix: Prefix = False,
    from_key: FromKey = False,
    limit: Annotated[int, typer.Option(help="Keys at most.")] = 0,
    rev: Annotated[int, typer.Option(help="As it was at this revision.")] = 0,
    consistency: Annotated[str, typer.Option(help="l: linearizable, s: serializable.")] = "l",
    sort_by: Annotated[str, typer.Option(help="CREATE, KEY, MODIFY, VALUE or VERSION.")] = "",
    order: Annotated[str, typer.Option(help="ASCEND or DESCEND.")] = "",
    keys_only: Annotated[bool, typer.Option("--keys-only", help="Only keys.")] = False,
    count_only: Annotated[bool, typer.Option("--count-only", help="Only how many.")] = False,
    print_value_only: Annotated[bool, typer.Option("--print-value-only", help="Only values.")] = False,
) -> None:
    """Read a key or a range of keys."""
    first, end = span(key, range_end, prefix, from_key)
    target = {"modify": "mod"}.get(sort_by.lower(), sort_by.lower())
    if order.lower() not in ("", "ascend", "descend"):
        fail(f"{order!r} is not an order: ASCEND or DESCEND.", BAD_ARGUMENTS)
    if consistency not in ("l", "s"):
        fail(f"{consistency!r} is not a consistency: l or s.", BAD_ARGUMENTS)
    sort = (target or "key", order.lower() == "descend") if target or order else None
    result = run(
        lambda client: client.get(
            first,
            range_end=end,
            limit=limit,
            revision=rev,
            serializable=consistency == "s",
            keys_only=keys_only,
            count_only=count_only,
            sort=sort,
        )
    )
    if count_only:
        simple = str(result.count)
    elif print_value_only:
        simple = "\n".join(text(kv.value) for kv in result.kvs)
    else:
        simple = words(result)
    show(shape.result(result), simple)


def delete(
    key: str, range_end: RangeEnd = "", prefix: Prefix = False, from_key: FromKey = False, prev_kv: PrevKv = False
) -> None:
    """Delete a key or a range of keys."""
    first, end = span(key, range_end, prefix, from_key)
    result = run(lambda client: client.delete(first, range_end=end, prev_kv=prev_kv))
    show(shape.result(result), words(result))


def watch(
    key: str,
    range_end: RangeEnd = "",
    prefix: Prefix = False,
    rev: Annotated[int, typer.Option(help="From this revision on.")] = 0,
    prev_kv: PrevKv = False,
) -> None:
    """Print changes as they come, until interrupted."""
    first, end = span(key, range_end, prefix, False)

    async def work(client: Client) -> None:
        async with client.watch(first, range_end=end, start_revision=rev, prev_kv=prev_kv) as changes:
            async for batch in changes:
                if flags.json:
                    print(shape.line(shape.batch(batch)), flush=True)
                    continue
                for event in batch.events:
                    shown = [event.kv] if event.prev_kv is None else [event.prev_kv, event.kv]
                    print(f"{event.type.upper()}\n{lines(shown)}", flush=True)

    run(work)


_COMPARE = re.compile(r"""\s*(\w+)\(\s*(".*?"|'.*?'|[^)]*)\s*\)\s*(!=|==|=|<|>)\s*(.+?)\s*$""")


def comparison(line: str) -> Compare:
    """`mod("key") > "0"` and the like."""
    from kvstore.model import Compare

    match = _COMPARE.match(line)
    targets = {"c": "create", "create": "create", "m": "mod", "mod": "mod", "val": "value", "value": "value"}
    targets |= {"ver": "version", "version": "version", "lease": "lease"}
    if match is None or match[1] not in targets:
        fail(f'{line!r} is not a comparison: write for example mod("key") > "0".', BAD_ARGUMENTS)
    target, key, value = targets[match[1]], raw(match[2].strip("\"'")), match[4].strip("\"'")
    if target == "value":
        return Compare.value(key, match[3], raw(value))
    return Compare(key, target, match[3], number(value, hexadecimal=target == "lease"))


def operation(line: str) -> Op:
    """`put key value`, `get key [end]` or `del key [end]`, with --prefix, --lease and --prev-kv."""
    from kvstore.client import prefix_end
    from kvstore.model import Op

    given = shlex.split(line)
    options = {word for word in given if word.startswith("--")}
    plain_words = [raw(word) for word in given if not word.startswith("--")]
    lease = next((number(word.partition("=")[2]) for word in options if word.startswith("--lease=")), 0)
    match plain_words:
        case [b"put", key, value]:
            return Op.put(key, value, lease, prev_kv="--prev-kv" in options)
        case [b"get", key, *rest] if len(rest) < 2:
            return Op.get(key, range_end=prefix_end(key) if "--prefix" in options else b"".join(rest))
        case [b"del", key, *rest] if len(rest) < 2:
            end = prefix_end(key) if "--prefix" in options else b"".join(rest)
            return Op.delete(key, range_end=end, prev_kv="--prev-kv" in options)
    fail(f"{line!r} is not an operation: put KEY VALUE, get KEY or del KEY.", BAD_ARGUMENTS)


def txn(
    interactive: Annotated[bool, typer.Option("-i", "--interactive", help="Say what is being read.")] = False,
) -> None:
    """Read comparisons, operations for success, operations for failure; an empty line ends each part."""
    parts: list[list[str]] = []
    for title in ("compares", "success requests", "failure requests"):
        if interactive:
            print(f"{title}:", flush=True)
        part: list[str] = []
        for line in sys.stdin:
            if not line.strip():
                break
            part.append(line.strip())
        parts.append(part)
    compares = [comparison(line) for line in parts[0]]
    success, failure = ([operation(line) for line in part] for part in parts[1:])
    result = run(lambda client: client.txn(compares, success, failure))
    show(shape.result(result), words(result))
