"""The journal of a unit: the logs of all its processes and containers on this machine as one, in the order of time.

Each process has a folder `<journal>/<unit>/<number>-<name>`, written by its monitor and read by `monitor.logfile`. A
cursor says where each folder was left. What other machines hold is the API's affair.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agent.monitor import logfile

FOLDERS_KEPT = 200
"""Folders of ended processes that stay for a unit; older ones are dropped."""
NEW_FOLDER_POLL_S = 0.2
CURSOR_VERSION = 1


class JournalError(Exception):
    """A cursor that can't be read."""


@dataclass(frozen=True)
class JournalLine:
    """A line of a unit."""

    time_ns: int
    stream: str
    text: str
    source: str
    """The folder that it stands in."""
    partial: bool = False
    """The next line of this source goes on with it."""


@dataclass
class Position:
    """How far a reader has come, by folder; as text it is a cursor, good for one machine and one boot or several."""

    machine: str = ""
    boot: str = ""
    folders: dict[str, logfile.Cursor] = field(default_factory=dict)

    def __str__(self) -> str:
        places = {name: str(cursor) for name, cursor in self.folders.items()}
        return json.dumps({"v": CURSOR_VERSION, "m": self.machine, "b": self.boot, "f": places}, separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read back what `str` made."""
        try:
            content = json.loads(text)
            if content["v"] != CURSOR_VERSION:
                raise JournalError(
                    f"The journal cursor has version {content['v']}; this fleetd knows {CURSOR_VERSION}."
                )
            places = {name: logfile.Cursor.parse(cursor) for name, cursor in content["f"].items()}
            return cls(content["m"], content["b"], places)
        except (ValueError, KeyError, TypeError) as error:
            raise JournalError(f"'{text[:60]}' is not a journal cursor.") from error


def _number(folder: Path) -> int:
    return int(folder.name.partition("-")[0])


def phase(folder: Path) -> str:
    """What the process of a folder was for: `start`, `stop-post` ..."""
    return folder.name.partition("-")[2]


def folders(unit_dir: Path) -> list[Path]:
    """The folders of a unit, oldest first."""
    try:
        found = [path for path in unit_dir.iterdir() if path.is_dir() and path.name.partition("-")[0].isdigit()]
    except FileNotFoundError:
        return []
    return sorted(found, key=_number)


def new_folder(unit_dir: Path, name: str, keep: frozenset[str] = frozenset()) -> Path:
    """Make the folder for a new process, and drop the oldest beyond the limit that are not in `keep` (full paths). Its
    number is above those of `keep` too, though their folders may be gone: what lives is told from it by its number."""
    found = folders(unit_dir)
    number = max([_number(path) for path in found] + [_number(Path(path)) for path in keep], default=0) + 1
    path = unit_dir / f"{number:06d}-{name}"
    path.mkdir(parents=True)
    idle = [old for old in found if str(old) not in keep]
    for old in idle[: max(0, len(idle) - FOLDERS_KEPT + 1)]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def read(unit_dir: Path, lines: int | None = None, position: Position | None = None) -> list[JournalLine]:
    """What is there now, oldest first: the last `lines`, or everything after a position (which moves along)."""
    at = position if position is not None else Position()
    sources: list[Iterator[JournalLine]] = []
    for folder in folders(unit_dir):
        sources.append(_entries(folder, at, lines if folder.name not in at.folders else None))
    merged = list(heapq.merge(*sources, key=lambda line: line.time_ns))
    return merged if lines is None else merged[len(merged) - min(lines, len(merged)) :]


def _entries(folder: Path, at: Position, lines: int | None) -> Iterator[JournalLine]:
    since = at.folders.get(folder.name)
    entries = logfile.read(folder, since) if lines is None else iter(logfile.tail(folder, max(1, lines)))
    for entry in entries:
        at.folders[folder.name] = entry.after
        text = entry.text.decode(errors="replace")
        yield JournalLine(entry.time_ns, entry.stream, text, folder.name, entry.partial)


async def follow(
    unit_dir: Path, lines: int | None = None, position: Position | None = None
) -> AsyncIterator[JournalLine]:
    """Yield what is there (as `read` does), then what comes, also of processes that start later. It never ends."""
    at = position if position is not None else Position()
    for line in await asyncio.to_thread(read, unit_dir, lines, at):
        yield line
    queue: asyncio.Queue[JournalLine] = asyncio.Queue(maxsize=1000)
    watched: set[str] = set()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_watch_folders(unit_dir, at, watched, queue, group))]
        try:
            while True:
                yield await queue.get()
        finally:
            for task in tasks:
                task.cancel()


async def _watch_folders(
    unit_dir: Path, at: Position, watched: set[str], queue: asyncio.Queue[JournalLine], group: asyncio.TaskGroup
) -> None:
    """Follow every folder, and each new one as it appears."""
    tasks: list[asyncio.Task[None]] = []
    try:
        while True:
            for folder in folders(unit_dir):
                if folder.name not in watched:
                    watched.add(folder.name)
                    tasks.append(group.create_task(_follow_folder(folder, at, queue)))
            await asyncio.sleep(NEW_FOLDER_POLL_S)
    finally:
        for task in tasks:
            task.cancel()


async def _follow_folder(folder: Path, at: Position, queue: asyncio.Queue[JournalLine]) -> None:
    async for entry in logfile.follow(folder, at.folders.get(folder.name)):
        at.folders[folder.name] = entry.after
        text = entry.text.decode(errors="replace")
        await queue.put(JournalLine(entry.time_ns, entry.stream, text, folder.name, entry.partial))


def write_note(log_dir: Path, text: str) -> None:
    """Write a line into a log folder that no monitor writes, as the step of a docker line is."""
    log_dir.mkdir(parents=True, exist_ok=True)
    now = time.time_ns()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)) + f".{now % 10**9:09d}Z"
    generations = [int(path.suffix[1:]) for path in log_dir.glob("log.*") if path.suffix[1:].isdigit()]
    target = log_dir / f"log.{max(generations, default=1)}"
    with open(target, "ab") as file:
        for line in text.splitlines() or [""]:
            file.write(f"{stamp} stderr F {line}\n".encode())
