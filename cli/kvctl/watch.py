"""kvctl's verb watch: changes as they come, printed, or handed to a command."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.exceptions import TyperException

from cli.kvctl import fields, gotext, keys, shape
from cli.kvctl.commandline import command_words, explanation, spread
from cli.kvctl.session import BAD_ARGUMENTS, BAD_INPUT, INTERRUPTED, flags, run, told, whole
from cli.kvctl.show import allow, out, show
from cli.output import fail
from kvstore.client import Client, prefix_end
from kvstore.errors import Compacted, StoreError
from kvstore.model import Event, Header, WatchBatch

if TYPE_CHECKING:
    from kvstore.watching import Watch

Words = Annotated[list[str] | None, typer.Argument(metavar="KEY [RANGE_END] [-- COMMAND]", show_default=False)]
_READ_BYTES = 64 << 10
_NO_COMMAND = "bad number of arguments (found separator --, but no commands)"
_CONFLICT = "bad number of arguments (found conflicting environment key)"
_NUMBER = "bad number of arguments"
_EITHER = "`range_end` and `--prefix` are mutually exclusive"


class WatchError(ValueError):
    """What is to be watched makes no sense."""


@dataclass(frozen=True)
class Wish:
    """What is to be watched, and what to run for each event."""

    key: str
    range_end: str
    prefix: bool
    revision: int
    prev_kv: bool
    progress: bool
    command: tuple[str, ...] = ()


def wish(words: list[str], command: list[str] | None, **options: Any) -> Wish:
    """Read arguments, with what the environment names. Raises WatchError."""
    key, end = (os.environ.get(f"ETCDCTL_WATCH_{name}", "") for name in ("KEY", "RANGE_END"))
    if end and not key:
        raise WatchError(f"ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END={gotext.quote(end)}")
    if command == []:
        raise WatchError(_NO_COMMAND)
    if key and words:
        raise WatchError(_CONFLICT)
    if key:
        words = [key, end] if end else [key]
    if not words:
        raise WatchError(_NUMBER)
    if len(words) > 1 and options["prefix"]:
        raise WatchError(_EITHER)
    return Wish(words[0], words[1] if len(words) > 1 else "", command=tuple(command or ()), **options)


def _opened(client: Client, asked: Wish) -> Watch:
    key = keys.raw(asked.key)
    end = prefix_end(key) if asked.prefix else keys.raw(asked.range_end)
    key = key or (b"\0" if asked.prefix else b"")
    return client.watch(
        key, range_end=end, start_revision=max(asked.revision, 0), prev_kv=asked.prev_kv, progress_notify=asked.progress
    )


def _words(events: tuple[Event, ...]) -> Iterator[str]:
    for event in events:
        yield event.type.upper()
        yield from keys.lines([event.kv] if event.prev_kv is None else [event.prev_kv, event.kv])


def _wire(head: Header | None, events: tuple[Event, ...], compacted: int = 0) -> None:
    from kvstore import wire

    message = {"header": shape.header(head), "compact_revision": compacted, "canceled": bool(compacted)}
    told = wire.encode("WatchResponse", message | {"events": [shape.event(one) for one in events]})
    sys.stdout.buffer.write(told)
    sys.stdout.buffer.flush()


def _print(batch: WatchBatch) -> None:
    if not batch.events:
        out(f"progress notify: {batch.header.revision if batch.header else batch.revision}")
    if flags.output == "protobuf":
        _wire(batch.header, batch.events)
    elif batch.events or flags.output != "simple":
        show(
            lambda: shape.batch(batch),
            lambda: _words(batch.events),
            fields=lambda: fields.events(batch.header, batch.events),
        )


def _execute(command: tuple[str, ...], batch: WatchBatch) -> None:
    for event in batch.events:
        told = {"REVISION": str(batch.header.revision if batch.header else batch.revision)}
        told |= {"EVENT_TYPE": gotext.quote(event.type.upper()), "KEY": fields.text(event.kv.key)}
        told |= {"VALUE": fields.text(event.kv.value)}
        environment = {f"ETCD_WATCH_{name}": value for name, value in told.items()}
        try:
            code = subprocess.run(command, env={**os.environ, **environment}, stdin=subprocess.DEVNULL).returncode
            why = "" if code == 0 else f"signal {-code}" if code < 0 else f"exit status {code}"
        except OSError as error:
            why = gotext.not_executed(command[0], error)
        if why:
            shown = " ".join(map(gotext.quote, command))
            print(f"command [{shown}] error ({why})", file=sys.stderr)
            raise SystemExit(1)


async def _follow(client: Client, asked: Wish, opened: asyncio.Future[Watch] | None = None) -> None:
    """Until the store ends the watch, which is told; raises nothing for that."""
    try:
        async with _opened(client, asked) as watch:
            if opened is not None:
                opened.set_result(watch)
            async for batch in watch:
                _print(batch)
                if asked.command:
                    await asyncio.to_thread(_execute, asked.command, batch)
    except StoreError as error:
        print(f"watch was canceled ({told(error)})", file=sys.stderr, flush=True)
        _print_end(error)
    finally:
        if opened is not None:
            opened.cancel()


def _print_end(error: StoreError) -> None:
    head = error.header if isinstance(error, Compacted) else None
    compacted = error.revision if isinstance(error, Compacted) else 0
    if flags.output == "protobuf":
        _wire(head, (), compacted)
    elif flags.output != "simple":
        ended = shape.watched(head, [], compacted) | {"Canceled": True}
        show(ended, lambda: [], fields=lambda: fields.events(head, ()))


def watch(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="KEY [RANGE_END] [-- COMMAND]", show_default=False)
    ] = None,
    interactive: Annotated[bool, typer.Option("-i", "--interactive", help="Read 'watch ...' and 'progress'.")] = False,
    prefix: keys.Prefix = False,
    rev: Annotated[int, typer.Option(parser=whole, metavar="N", help="From this revision on.")] = 0,
    prev_kv: keys.PrevKv = False,
    progress_notify: Annotated[bool, typer.Option("--progress-notify", help="Tell progress now and then.")] = False,
) -> None:
    """Print changes as they come, until interrupted; or run COMMAND for each, with ETCD_WATCH_KEY, _VALUE, _EVENT_TYPE
    and _REVISION in its environment."""
    allow("fields", "protobuf")
    options = {"prefix": prefix, "revision": rev, "prev_kv": prev_kv, "progress": progress_notify}
    if interactive:
        run(_interact, patient=True)
        return
    try:
        asked = wish(words or [], command_words(), **options)
    except WatchError as error:
        fail(str(error), BAD_ARGUMENTS)
    run(lambda client: _follow(client, asked), patient=True)
    fail("watch is canceled by the server", INTERRUPTED)


def _read(line: str) -> Wish:
    """What a line `watch ...` asks for; without flags of its own, none apply."""
    given = gotext.split(line)[1:]
    command = given[given.index("--") + 1 :] if "--" in given else None
    given = given[: given.index("--")] if "--" in given else given
    app = typer.Typer(add_completion=False)
    app.command("watch")(watch)
    try:
        asked = typer.main.get_command(app).make_context("watch", spread(given)).params
    except TyperException as error:
        raise WatchError(explanation(error)) from error
    options = {"prefix": asked["prefix"], "revision": asked["rev"], "prev_kv": asked["prev_kv"]}
    return wish(asked["words"] or [], command, **options, progress=asked["progress_notify"])


def _typed() -> asyncio.Queue[bytes | None]:
    """The lines of standard input as they come; None at its end. Nobody waits for the thread that reads them."""
    lines: asyncio.Queue[bytes | None] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def read() -> None:
        rest = b""
        while data := os.read(sys.stdin.fileno(), _READ_BYTES):
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                loop.call_soon_threadsafe(lines.put_nowait, line)
        loop.call_soon_threadsafe(lines.put_nowait, None)

    threading.Thread(target=read, daemon=True).start()
    return lines


async def _interact(client: Client) -> None:
    watches: list[Watch] = []
    lines = _typed()
    async with asyncio.TaskGroup() as tasks:
        while (data := await lines.get()) is not None:
            line = data.decode(errors="surrogateescape")
            verb, *rest = gotext.split(line) or [""]
            match verb:
                case "watch" if rest or os.environ.get("ETCDCTL_WATCH_KEY"):
                    if (asked := _asked(line)) is not None:
                        watches += await _begun(tasks, client, asked)
                case "watch":
                    _invalid(f"Invalid command {line} (command type or key is not provided)")
                case "progress":
                    for watch in watches:
                        with contextlib.suppress(StoreError):  # of one that has ended
                            watch.request_progress()
                case "":
                    _invalid(f"Invalid command: {line} (watch and progress supported)")
                case _:
                    _invalid(f"Invalid command {line} (only support watch)")
        fail("Error reading watch request line: EOF", BAD_INPUT)


async def _begun(tasks: asyncio.TaskGroup, client: Client, asked: Wish) -> list[Watch]:
    """The watch, once it is open; nothing when that could not be."""
    opened: asyncio.Future[Watch] = asyncio.get_running_loop().create_future()
    tasks.create_task(_follow(client, asked, opened))
    await asyncio.wait([opened])
    return [] if opened.cancelled() else [opened.result()]


def _asked(line: str) -> Wish | None:
    """What a line asks for; a mistake that is not the line's alone ends the program."""
    try:
        return _read(line)
    except WatchError as error:
        if str(error) != _EITHER:
            fail(str(error), BAD_ARGUMENTS)
        _invalid(f"Invalid command {line} ({error})")
        return None


def _invalid(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
