"""Talks to fleet-monitor: starts one, finds it again after a restart of the caller, hears its events, gives orders.

It decides nothing about restarts and knows no units. The native side is `agent/monitor/src`; the protocol is one JSON
object a line on the unix socket `<run_dir>/control` (mode 0600), version 1.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import json
import logging
import os
import shutil
import signal as signals
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from agent import filelimit
from agent.monitor.model import (
    Bundle,
    Command,
    Created,
    Event,
    Exited,
    Forked,
    MainPid,
    MonitorError,
    MonitorLost,
    MonitorSilent,
    MonitorSpec,
    Notify,
    Started,
    Whom,
    event_of,
)

__all__ = [
    "Attachment",
    "Bundle",
    "Command",
    "Created",
    "Event",
    "Exited",
    "Forked",
    "Link",
    "MainPid",
    "MonitorError",
    "MonitorLost",
    "MonitorSilent",
    "MonitorSpec",
    "Notify",
    "Started",
    "Whom",
    "connect",
    "read_exit",
    "reconnect",
    "spawn",
]

PROTOCOL_VERSION = 1
ANSWER_TIMEOUT_S = 10.0
SPAWN_TIMEOUT_S = 20.0
RETRY_S = 1.0
LINE_LIMIT_BYTES = 1 << 20
FRAME_LIMIT_BYTES = 1 << 20
MAX_NOTIFIES_WAITING = 1000
"""More than a consumer leaves unread are dropped: only a payload that floods its socket gets there."""

log = logging.getLogger(__name__)


class Attachment:
    """One client of a payload's stdin, stdout and stderr; there may be several."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> tuple[Literal["stdout", "stderr"], bytes] | None:
        """Return the next piece of output, or None when the payload has ended (or the monitor is gone)."""
        try:
            kind, length = struct.unpack(">BI", await self._reader.readexactly(5))
            if length > FRAME_LIMIT_BYTES:
                raise MonitorError(f"the monitor announced a frame of {length} bytes; the limit is {FRAME_LIMIT_BYTES}")
            data = await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return ("stderr" if kind == 2 else "stdout", data)

    async def write(self, data: bytes) -> None:
        """Send bytes to the payload's stdin; waits while it does not read."""
        for at in range(0, len(data), 65536):
            piece = data[at : at + 65536]
            self._writer.write(struct.pack(">BI", 0, len(piece)) + piece)
            await self._writer.drain()

    async def write_eof(self) -> None:
        """Close the payload's stdin (on a tty: send its end-of-file character)."""
        self._writer.write(struct.pack(">BI", 0, 0))
        await self._writer.drain()

    async def close(self) -> None:
        """Detach; the payload runs on."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    async def __aenter__(self) -> Attachment:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Link:
    """A connection to one monitor. Closing it leaves monitor and payload as they are."""

    def __init__(self, run_dir: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.run_dir = run_dir
        self.id = ""
        self.monitor_pid = 0
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._pump = asyncio.create_task(self._read_lines(), name=f"monitor-link {run_dir.name}")

    async def events(self) -> AsyncIterator[Event]:
        """Yield the payload's story from its beginning (also after `connect`), then what happens, as it happens.

        Ends after `Exited`, or early when the monitor is lost: then `read_exit` has the last word. One consumer.
        """
        while (event := await self._events.get()) is not None:
            yield event
            if isinstance(event, Exited):
                return

    async def wait(self, seen: Callable[[Event], object] | None = None) -> Exited:
        """Consume events up to the end and return it; raises MonitorLost when the monitor died without a record.
        `seen` is called with each."""
        async for event in self.events():
            if seen is not None:
                seen(event)
            if isinstance(event, Exited):
                return event
        if (record := read_exit(self.run_dir)) is not None:
            return record
        raise MonitorLost(f"the monitor of {self.run_dir} went away and left no exit record")

    async def start(self) -> None:
        """Start a held command or a created container; returns when it is under way (`Started` or `Exited` follows)."""
        await self._ask("start")

    async def signal(self, sig: int, whom: Whom = "main") -> None:
        """Send a signal to the main process or to everything in the payload's cgroups. Nobody left is no error."""
        await self._ask("signal", signal=int(sig), whom=whom)

    async def kill(self) -> None:
        """SIGKILL to everything in the payload's cgroups."""
        await self.signal(signals.SIGKILL, "all")

    async def resize(self, rows: int, columns: int) -> None:
        """Set the tty's size; an error when the payload has none."""
        await self._ask("resize", rows=rows, columns=columns)

    async def attach(self) -> Attachment:
        """Join the payload's streams from now on. An attachment made before `start` misses nothing."""
        reader, writer = await _open(self.run_dir)
        try:
            writer.write(json.dumps({"op": "attach", "n": 1, "version": PROTOCOL_VERSION}).encode() + b"\n")
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                answer = json.loads(await reader.readline() or b"{}")
        except (ConnectionError, ValueError, TimeoutError) as error:
            writer.close()
            raise MonitorLost(f"the monitor of {self.run_dir} did not answer an attach: {error}") from error
        if not answer.get("ok"):
            writer.close()
            raise MonitorError(str(answer.get("error") or "the monitor closed the connection"))
        return Attachment(reader, writer)

    async def forget(self) -> None:
        """Tell the monitor of an ended payload (or of a command that is still held) to exit: its record was taken.

        Refused while the payload runs.
        """
        with contextlib.suppress(MonitorLost):
            await self._ask("forget")
            await asyncio.wait([self._pump], timeout=ANSWER_TIMEOUT_S)  # its last act is to close this connection
        await self.close()

    async def close(self) -> None:
        """Drop this connection."""
        self._pump.cancel()
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    async def _ask(self, op: str, **arguments: object) -> dict[str, Any]:
        number = next(self._numbers)
        answered: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        if self._pump.done():
            raise MonitorLost(f"the monitor of {self.run_dir} is gone")
        self._waiting[number] = answered
        try:
            self._writer.write(json.dumps({"op": op, "n": number, **arguments}).encode() + b"\n")
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await self._writer.drain()
                answer = await answered
        except ConnectionError as error:
            raise MonitorLost(f"the monitor of {self.run_dir} did not answer `{op}`: {error}") from error
        except TimeoutError as error:
            raise MonitorSilent(f"the monitor of {self.run_dir} did not answer `{op}` in time") from error
        finally:
            del self._waiting[number]
        if not answer["ok"]:
            raise MonitorError(str(answer["error"]))
        return answer

    async def _read_lines(self) -> None:
        try:
            while line := await self._reader.readline():
                message = json.loads(line)
                if "event" in message:
                    event = event_of(message)
                    if not isinstance(event, Notify) or self._events.qsize() < MAX_NOTIFIES_WAITING:
                        self._events.put_nowait(event)
                elif (answered := self._waiting.get(message.get("n", 0))) is not None and not answered.done():
                    answered.set_result(message)
        except (ConnectionError, ValueError):
            pass
        finally:
            self._events.put_nowait(None)
            for answered in self._waiting.values():
                if not answered.done():
                    answered.set_exception(MonitorLost(f"the monitor of {self.run_dir} went away"))


async def spawn(spec: MonitorSpec) -> Link:
    """Start a monitor that outlives this process, and connect to it.

    Raises MonitorError with the monitor's own sentence when it can't set itself up. The spec goes over a pipe, so that
    secrets in the environment are in nobody's argv and in no file.
    """
    if (spec.command is None) == (spec.bundle is None):
        raise MonitorError(f"monitor {spec.id}: a spec has either a command or a bundle")
    payload = json.dumps({"version": PROTOCOL_VERSION, **_plain(asdict(spec))}).encode()
    await asyncio.to_thread(_start_program, spec.id, payload)
    return await connect(spec.run_dir)


def _start_program(name: str, spec: bytes) -> None:
    """Return when a monitor is set up and on its own. Blocks: a fork takes its time."""
    process = subprocess.Popen([_program()], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    filelimit.give_back(process.pid)  # before it has its spec: what it starts inherits it
    try:
        _, complaint = process.communicate(spec, timeout=SPAWN_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        process.kill()
        process.communicate()
        raise MonitorError(f"fleet-monitor for {name} was not ready after {SPAWN_TIMEOUT_S:.0f} s") from error
    if process.returncode != 0:
        raise MonitorError(
            complaint.decode(errors="replace").strip() or f"fleet-monitor ended with {process.returncode}"
        )


async def connect(run_dir: Path) -> Link:
    """Connect to the monitor that lives in `run_dir`; raises MonitorLost when none answers there."""
    reader, writer = await _open(run_dir)
    link = Link(run_dir, reader, writer)
    try:
        answer = await link._ask("hello", version=PROTOCOL_VERSION)
    except BaseException:
        await link.close()
        raise
    link.id = answer["id"]
    link.monitor_pid = answer["pid"]
    return link


async def reconnect(run_dir: Path) -> Link:
    """Connect to a monitor of an earlier fleetd, again and again while it is silent: that is no proof of its death.
    Raises MonitorLost when there is none."""
    while True:
        try:
            return await connect(run_dir)
        except MonitorSilent as error:
            log.warning("%s; it is asked again", error)
        await asyncio.sleep(RETRY_S)


def read_exit(run_dir: Path) -> Exited | None:
    """Return the durable exit record in `run_dir`, or None when the payload has not ended there."""
    try:
        text = (run_dir / "exit.json").read_bytes()
    except FileNotFoundError:
        return None
    try:
        event = event_of(json.loads(text))
    except (ValueError, KeyError, TypeError) as error:
        raise MonitorError(f"the exit record {run_dir / 'exit.json'} can't be read: {error}") from error
    if not isinstance(event, Exited):
        raise MonitorError(f"{run_dir / 'exit.json'} holds no exit record")
    return event


async def _open(run_dir: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect by way of a directory handle, since a socket's path may have only 107 bytes."""
    try:
        handle = os.open(run_dir, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise _unreachable(run_dir, error) from error
    channel: socket.socket | None = None
    try:
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        channel.setblocking(False)
        channel.connect(f"/proc/self/fd/{handle}/control")
        return await asyncio.open_unix_connection(sock=channel, limit=LINE_LIMIT_BYTES)
    except OSError as error:
        if channel is not None:
            channel.close()
        raise _unreachable(run_dir, error) from error
    finally:
        os.close(handle)


def _unreachable(run_dir: Path, error: OSError) -> MonitorLost:
    """Only a missing socket, or one that nobody listens on, says that there is no monitor."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED):
        return MonitorLost(f"there is no monitor in {run_dir}: {error.strerror}")
    return MonitorSilent(f"the monitor in {run_dir} can't be reached: {error.strerror}")


def _program() -> str:
    """Find the native program: beside this interpreter, in a source tree's build, or on PATH."""
    if named := os.environ.get("FLEET_MONITOR"):
        return named
    beside = Path(sys.executable).parent / "fleet-monitor"
    built = Path(__file__).parents[2] / "target" / "release" / "fleet-monitor"
    for candidate in (built, beside):
        if candidate.exists():
            return str(candidate)
    if found := shutil.which("fleet-monitor"):
        return found
    raise MonitorError(
        f"the program fleet-monitor is neither beside {sys.executable} nor on PATH; install fleetd again"
    )


def _plain(value: object) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
