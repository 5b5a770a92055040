"""kvctl's verb txn: comparisons and operations, a line each, in three parts that end with an empty line."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Annotated, TypeVar

import typer
from typer.exceptions import TyperException

from cli.kvctl import gotext, keys
from cli.kvctl.commandline import spread
from cli.kvctl.session import BAD_ARGUMENTS, BAD_INPUT, count, run
from cli.kvctl.show import allow, out
from cli.output import fail
from kvstore.model import Compare, Op

T = TypeVar("T")
_MAKERS: dict[str, Callable[..., Op]] = {"put": keys.put_op, "get": keys.get_op, "del": keys.del_op}
_TARGETS = {"ver": "version", "version": "version", "c": "create", "create": "create", "m": "mod", "mod": "mod"}
_TARGETS |= {"val": "value", "value": "value", "lease": "lease"}
_RESULTS = ("=", "!=", "<", ">")


def comparison(line: str) -> Compare:
    """`mod("key") > "0"` and the like."""
    target, parenthesis, rest = line.partition("(")
    if not parenthesis:
        fail(f"malformed comparison: {line}", BAD_INPUT)
    key, result, value = _scanned(rest)
    if value is None:
        got = f"{target}({gotext.quote(key or '')}) {result} {gotext.quote('')}"
        fail(f"malformed comparison: {line}; got {got}", BAD_INPUT)
    kind = _TARGETS.get(target)
    if kind is None:
        fail(f"malformed comparison: {line} (unknown target {target})", BAD_INPUT)
    if result not in _RESULTS:
        fail(f"malformed comparison: {line} (unknown result op {result})", BAD_INPUT)
    if kind == "value":
        return Compare.value(keys.raw(key), result, keys.raw(value))
    try:
        return Compare(keys.raw(key), kind, result, gotext.integer(value, base=16 if kind == "lease" else 10))
    except gotext.GoTextError:
        fail(f"invalid txn compare request: {line}", BAD_INPUT)


def _scanned(text: str) -> tuple[str, str, str | None]:
    """Key, operator and value of `"KEY") OPERATOR "VALUE"`; without a value, as far as it could be read."""
    match = re.match(rf"\s*({gotext.QUOTED.pattern})", text)
    try:
        key = gotext.unquote(match[1]) if match else ""
        after = re.compile(r"\)[ \t]+(\S+)").match(text, match.end()) if match else None
        result = after[1] if after else ""
        last = re.compile(rf"[ \t]+({gotext.QUOTED.pattern})").match(text, after.end()) if after else None
        return key, result, gotext.unquote(last[1]) if last else None
    except gotext.GoTextError:
        return "", "", None


def operation(line: str) -> Op:
    """`put`, `get` or `del` with arguments and flags, as on the command line."""
    verb, *given = gotext.split(line)
    if not given:
        fail(f"invalid txn compare request: {line}", BAD_INPUT)
    make = _MAKERS.get(verb)
    if make is None:
        fail(f"invalid txn request: {line}", BAD_INPUT)
    app = typer.Typer(add_completion=False)
    app.command(verb)(make)
    try:
        asked = typer.main.get_command(app).make_context(verb, spread(given)).params
    except TyperException:
        fail(f"invalid txn request: {line}", BAD_INPUT)
    if verb == "put" and len(asked["words"] or []) < 2 and not asked["ignore_value"]:
        # Standard input holds the transaction, not a value.
        fail("put command needs 1 argument and input from stdin or 2 arguments", BAD_ARGUMENTS)
    return make(**asked)


def _part(title: str, read: Callable[[str], T], interactive: bool) -> list[T]:
    if interactive:
        out(title)
    found: list[T] = []
    while True:
        line = sys.stdin.buffer.readline()
        if not line.endswith(b"\n"):
            print("Each of the three parts ends with an empty line.", file=sys.stderr)
            fail("EOF", BAD_INPUT)
        text = line.decode(errors="surrogateescape").strip()
        if not text:
            return found
        found.append(read(text))


def txn(
    words: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    interactive: Annotated[bool, typer.Option("-i", "--interactive", help="Say what is being read.")] = False,
) -> None:
    """Read comparisons, operations for success, operations for failure; an empty line ends each part."""
    allow("fields", "protobuf")
    count(words, 0, 0, "txn command does not accept argument")
    compares = _part("compares:", comparison, interactive)
    success = _part("success requests (get, put, del):", operation, interactive)
    failure = _part("failure requests (get, put, del):", operation, interactive)
    result = run(lambda client: client.txn(compares, success, failure))
    keys.show_result("TxnResponse", result)
