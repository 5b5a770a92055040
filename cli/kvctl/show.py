"""Printing an answer in the output format that was asked for: simple, json, fields, table or protobuf."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cli.kvctl import shape
from cli.kvctl.session import BAD_FEATURE, flags
from cli.output import fail, width

Rows = tuple[Sequence[str], list[list[str]]]
Lines = Callable[[], Iterable[str]]


def allow(*forms: str) -> None:
    """Refuse an output format that the command lacks, before it does anything; simple and json it always has."""
    if flags.output not in ("simple", "json", *forms):
        fail(f"{flags.output} not supported as output format", BAD_FEATURE)


def out(text: str) -> None:
    """Print a line, whatever bytes stand in it."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode(errors="surrogateescape") + b"\n")
    sys.stdout.buffer.flush()


def show(value: Any, simple: Lines, *, fields: Lines | None = None, rows: Callable[[], Rows] | None = None) -> None:
    """Print an answer: `value` is what stands in JSON."""
    match flags.output:
        case "json":
            out(shape.line(value()) if callable(value) else shape.line(value))
        case "fields" if fields is not None:
            _lines(fields())
        case "table" if rows is not None:
            out(table(*rows()))
        case "simple":
            _lines(simple())
        case other:
            fail(f"{other} not supported as output format", BAD_FEATURE)


def show_message(
    name: str,
    message: Mapping[str, Any],
    simple: Lines,
    fields: Lines | None = None,
    rows: Callable[[], Rows] | None = None,
) -> None:
    """Print a response that is a message of the protocol."""
    if flags.output == "protobuf":
        from kvstore import wire

        sys.stdout.buffer.write(wire.encode(name, message))
        sys.stdout.buffer.flush()
        return
    show(lambda: shape.plain(message), simple, fields=fields, rows=rows)


def _lines(lines: Iterable[str]) -> None:
    if found := list(lines):
        out("\n".join(found))


def table(headers: Sequence[str], rows: list[list[str]]) -> str:
    """A table in a frame: headings in capitals and in the middle, cells to the right."""
    widths = [max(map(width, column)) for column in zip(headers, *rows, strict=True)]
    frame = "+" + "+".join("-" * (wide + 2) for wide in widths) + "+"
    heading = [_middle(name.upper().replace("_", " "), wide) for name, wide in zip(headers, widths, strict=True)]
    cells = [[" " * (wide - width(cell)) + cell for cell, wide in zip(row, widths, strict=True)] for row in rows]
    body = ["| " + " | ".join(row) + " |" for row in [heading, *cells]]
    return "\n".join([frame, body[0], frame, *body[1:], *([frame] if rows else [])])


def _middle(text: str, wide: int) -> str:
    left = (wide - width(text)) // 2
    return " " * left + text + " " * (wide - width(text) - left)
