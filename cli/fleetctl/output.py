"""Tables, JSON and errors as fleetctl prints them. It asks nobody anything."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

SHORT_ID = 8


class Failure(Exception):
    """A command can't do what it was asked for; the text is for stderr, the code for the shell."""

    def __init__(self, text: str, code: int = 1) -> None:
        self.code = code
        super().__init__(text)


def table(fields: Sequence[str], rows: Sequence[Mapping[str, str]], *, legend: bool) -> None:
    """Print rows under upper-case headings, in columns parted by tabs as fleet's are."""
    lines = [[field.upper() for field in fields]] if legend else []
    lines += [[row[field] or "-" for field in fields] for row in rows]
    widths = [max((len(line[i]) for line in lines), default=0) // 8 * 8 + 8 for i in range(len(fields))]
    for line in lines:
        out = ""
        for index, word in enumerate(line[:-1]):
            out += word + "\t" * ((widths[index] - len(word) + 7) // 8)
        print(out + line[-1])


def choose_fields(asked: str, known: Sequence[str], default: Sequence[str]) -> list[str]:
    """Read --fields."""
    if not asked:
        return list(default)
    fields = [field.strip() for field in asked.split(",") if field.strip()]
    for field in fields:
        if field not in known:
            raise Failure(f"There is no field '{field}'; use some of {','.join(known)}.")
    return fields


def short(machine: str, full: bool) -> str:
    """A machine id as lists show it."""
    return machine if full or not machine else f"{machine[:SHORT_ID]}..."


def place(machine: str, addresses: Mapping[str, str], full: bool) -> str:
    """`1234abcd.../10.0.0.1`, '' for no machine."""
    if not machine:
        return ""
    address = addresses.get(machine, "")
    return f"{short(machine, full)}/{address}" if address else short(machine, full)


def print_json(value: Any) -> None:
    """Print a value for programs."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


def warn(text: str) -> None:
    """Tell the person at the terminal; no program reads it."""
    print(text, file=sys.stderr, flush=True)


def fail(error: Exception, code: int = 1) -> NoReturn:
    """End the command with a sentence."""
    warn(str(error))
    raise SystemExit(code)
