"""What every kvctl command shares: global flags, one client, errors, and the store's JSON."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from cli.kvctl.shape import line
from cli.output import fail

if TYPE_CHECKING:
    from kvstore.client import Client

T = TypeVar("T")
BAD_ARGUMENTS = 128
"""Exit code for arguments that make no sense, as with etcd's client."""
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


@dataclasses.dataclass
class Flags:
    """The global flags."""

    endpoints: list[str] = dataclasses.field(default_factory=lambda: ["127.0.0.1:2379"])
    json: bool = False
    timeout: float = 5.0


flags = Flags()


def seconds(text: str) -> float:
    """`5s`, `500ms`, `1m`, or plain seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|)", text)
    if match is None:
        fail(f"{text!r} is not a duration: write for example 5s or 500ms.", BAD_ARGUMENTS)
    return float(match[1]) * _UNITS[match[2]]


def number(text: str, *, hexadecimal: bool = True) -> int:
    """An id as kvctl prints it."""
    try:
        return int(text, 16 if hexadecimal else 10)
    except ValueError:
        fail(f"{text!r} is not {'a hexadecimal id' if hexadecimal else 'a number'}.", BAD_ARGUMENTS)


def run(work: Callable[[Client], Awaitable[T]]) -> T:
    """Do it with a client; an error of the store ends the program with its words and 1."""
    import asyncio  # like the client, what --help need not wait for

    from kvstore.client import Client
    from kvstore.errors import StoreError

    async def inside() -> T:
        async with Client(flags.endpoints, timeout=flags.timeout) as client:
            return await work(client)

    try:
        return asyncio.run(inside())
    except StoreError as error:
        fail(error.message)
    except ValueError as error:
        fail(str(error), BAD_ARGUMENTS)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def show(value: Any, simple: str) -> None:
    """Print a result as JSON or in words."""
    text = line(value) if flags.json else simple
    if text:
        print(text)
