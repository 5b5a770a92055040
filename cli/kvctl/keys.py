"""kvctl's verbs on keys: put get del compaction."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import typer

from cli.kvctl import fields, shape
from cli.kvctl.gotext import quote
from cli.kvctl.session import BAD_ARGUMENTS, BAD_FEATURE, REFUSED, count, flags, number, run, whole
from cli.kvctl.show import allow, out, show_message
from cli.output import fail
from kvstore.model import DeleteResult, KeyValue, Op, PutResult, RangeResult

Words = Annotated[list[str] | None, typer.Argument(metavar="KEY [RANGE_END]", show_default=False)]
KeyAndValue = Annotated[list[str] | None, typer.Argument(metavar="KEY [VALUE]", show_default=False)]
Prefix = Annotated[bool, typer.Option("--prefix", help="All keys that begin with KEY.")]
FromKey = Annotated[bool, typer.Option("--from-key", help="All keys from KEY on.")]
PrevKv = Annotated[bool, typer.Option("--prev-kv", help="Say what was there before.")]
Revision = Annotated[int, typer.Option(parser=whole, metavar="N", show_default=False)]
_TARGETS = {"CREATE": "create", "KEY": "key", "MODIFY": "mod", "VALUE": "value", "VERSION": "version"}
_VALUE_MISSING = "put command needs 1 argument and input from stdin or 2 arguments"


def text(data: bytes) -> str:
    """Bytes for a terminal or a pipe, unharmed; with --hex, each as \\xNN."""
    return "".join(f"\\x{byte:02x}" for byte in data) if flags.hex else data.decode(errors="surrogateescape")


def raw(word: str) -> bytes:
    """An argument as bytes, unharmed."""
    return word.encode(errors="surrogateescape")


def lines(kvs: Iterable[KeyValue], values_only: bool = False) -> Iterator[str]:
    """Keys and values, a line each."""
    for kv in kvs:
        if not values_only:
            yield text(kv.key)
        yield text(kv.value)


def words(result: Any, values_only: bool = False) -> Iterator[str]:
    """A result of put, get, del or txn in words."""
    match result:
        case PutResult(_, prev):
            yield "OK"
            yield from lines([prev] if prev else [])
        case RangeResult(_, kvs):
            yield from lines(kvs, values_only)
        case DeleteResult(_, deleted, prev_kvs):
            yield str(deleted)
            yield from lines(prev_kvs)
        case _:
            yield "SUCCESS" if result.succeeded else "FAILURE"
            for one in result.responses:
                yield ""
                yield from words(one)


def show_result(name: str, result: Any, values_only: bool = False) -> None:
    """Print a result of put, get, del or txn."""
    show_message(name, shape.result(result), lambda: words(result, values_only), lambda: fields.result(result))


def span(verb: str, given: list[str] | None, most: int | None, prefix: bool, from_key: bool) -> tuple[bytes, bytes]:
    """Key and range end of a command."""
    from kvstore.client import prefix_end

    message = f"{verb} command needs one argument as key and an optional argument as range_end"
    key, *end = count(given, 1, most or sys.maxsize, message)
    if prefix and from_key:
        fail("`--prefix` and `--from-key` cannot be set at the same time, choose one", BAD_ARGUMENTS)
    if end and (prefix or from_key):
        message = "too many arguments, only accept one argument when `--prefix` or `--from-key` is set"
        fail(message, BAD_ARGUMENTS)
    if prefix or from_key:
        return raw(key) or b"\0", b"\0" if from_key else prefix_end(raw(key))
    return raw(key), raw(end[0]) if end else b""


def put_op(
    words: KeyAndValue = None,
    lease: Annotated[str, typer.Option(metavar="ID", help="A lease, in hex, that the key ends with.")] = "0",
    prev_kv: PrevKv = False,
    ignore_value: Annotated[bool, typer.Option("--ignore-value", help="Keep the value that it has.")] = False,
    ignore_lease: Annotated[bool, typer.Option("--ignore-lease", help="Keep the lease that it has.")] = False,
) -> Op:
    """Set a key. Without VALUE it is read from standard input; after `--` it may begin with a dash."""
    key, *value = count(words, 1, sys.maxsize, _VALUE_MISSING)
    if ignore_value and value:
        fail("put command needs only 1 argument when 'ignore-value' is set", BAD_ARGUMENTS)
    data = raw(value[0]) if value else b"" if ignore_value else sys.stdin.buffer.read()
    if not value and not ignore_value and not data:
        fail(_VALUE_MISSING, BAD_ARGUMENTS)
    held = number(lease, "bad lease ID ({}), expecting ID in Hex")
    return Op.put(raw(key), data, held, prev_kv=prev_kv, ignore_value=ignore_value, ignore_lease=ignore_lease)


def get_op(
    words: Words = None,
    prefix: Prefix = False,
    from_key: FromKey = False,
    limit: Annotated[int, typer.Option(parser=whole, metavar="N", help="Keys at most.")] = 0,
    rev: Annotated[int, typer.Option(parser=whole, metavar="N", help="As it was at this revision.")] = 0,
    consistency: Annotated[str, typer.Option(help="l: linearizable, s: serializable.")] = "l",
    sort_by: Annotated[str, typer.Option(help="CREATE, KEY, MODIFY, VALUE or VERSION.")] = "",
    order: Annotated[str, typer.Option(help="ASCEND or DESCEND.")] = "",
    keys_only: Annotated[bool, typer.Option("--keys-only", help="Only keys.")] = False,
    count_only: Annotated[bool, typer.Option("--count-only", help="Only how many.")] = False,
    print_value_only: Annotated[bool, typer.Option("--print-value-only", help="Print only values.")] = False,
    min_create_rev: Revision = 0,
    max_create_rev: Revision = 0,
    min_mod_rev: Revision = 0,
    max_mod_rev: Revision = 0,
    stream: Annotated[bool, typer.Option("--stream", help="Have the answer come in pieces.")] = False,
) -> Op:
    """Read a key or a range of keys."""
    key, end = span("get", words, None, prefix, from_key)
    if keys_only and count_only:
        fail("`--keys-only` and `--count-only` cannot be set at the same time, choose one", BAD_ARGUMENTS)
    if consistency not in ("l", "s"):
        fail(f"unknown consistency flag {quote(consistency)}", BAD_FEATURE)
    if order.upper() not in ("", "ASCEND", "DESCEND"):
        fail(f"bad sort order {order}", BAD_FEATURE)
    if sort_by.upper() not in ("", *_TARGETS):
        fail(f"bad sort target {sort_by}", BAD_FEATURE)
    for name, low, high in (("Create", min_create_rev, max_create_rev), ("Mod", min_mod_rev, max_mod_rev)):
        if 0 < high < low:
            fail(f"getMin{name}Rev(={low}) > getMax{name}Rev(={high})", BAD_FEATURE)
    return Op.get(
        key,
        range_end=end,
        limit=limit,
        revision=max(rev, 0),
        serializable=consistency == "s",
        keys_only=keys_only,
        count_only=count_only,
        sort=(_TARGETS.get(sort_by.upper(), "key"), order.upper() == "DESCEND") if sort_by or order else None,
        min_create_revision=max(min_create_rev, 0),
        max_create_revision=max(max_create_rev, 0),
        min_mod_revision=max(min_mod_rev, 0),
        max_mod_revision=max(max_mod_rev, 0),
    )


def del_op(
    words: Words = None,
    prefix: Prefix = False,
    from_key: FromKey = False,
    prev_kv: PrevKv = False,
    range: Annotated[bool, typer.Option("--range", hidden=True)] = False,
) -> Op:
    """Delete a key or a range of keys."""
    key, end = span("del", words, 2, prefix, from_key)
    return Op.delete(key, range_end=end, prev_kv=prev_kv)


def compaction(
    words: Annotated[list[str] | None, typer.Argument(metavar="REVISION", show_default=False)] = None,
    physical: Annotated[bool, typer.Option("--physical", help="Wait until it is gone from the files too.")] = False,
) -> None:
    """Forget the history before a revision."""
    (word,) = count(words, 1, 1, "compaction command needs 1 argument")
    revision = number(word, base=10, code=REFUSED)
    run(lambda client: client.compact(revision, physical))
    out(f"compacted revision {revision}")


@functools.wraps(put_op)
def put(**given: Any) -> None:
    allow("fields", "protobuf")
    op = put_op(**given)
    show_result("PutResponse", run(lambda client: client.operate(op)))


@functools.wraps(get_op)
def get(**given: Any) -> None:
    allow("fields", "protobuf")
    op, values_only = get_op(**given), given["print_value_only"]
    if values_only and flags.output != "simple":
        fail("print-value-only is only for `--write-out=simple`", BAD_ARGUMENTS)
    streamed = given["stream"]
    result = run(lambda client: client.get_streamed(op) if streamed else client.operate(op))
    if op.count_only and flags.output == "simple":
        out(str(result.count))
    else:
        show_result("RangeResponse", result, values_only)


@functools.wraps(del_op)
def delete(**given: Any) -> None:
    allow("fields", "protobuf")
    op = del_op(**given)
    show_result("DeleteRangeResponse", run(lambda client: client.operate(op)))
