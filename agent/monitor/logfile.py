"""Reads and follows the log that a monitor writes, across rotation. It never writes.

A log directory holds files `log.<generation>`, the highest being written now; they are never renamed, so a cursor of
generation and offset stays good until its file is dropped. A line is `time stream P|F text`: time in RFC 3339 with
nanoseconds, UTC; `P` says that the line goes on in the next record, `F` that the newline came.
"""

from __future__ import annotations

import asyncio
import calendar
import contextlib
import ctypes
import os
import re
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

READ_BYTES = 1 << 16
LOST_INOTIFY_POLL_S = 0.5
_NAME = re.compile(r"log\.([1-9][0-9]*)\Z")
_IN_MODIFY, _IN_CREATE, _IN_CLOEXEC, _IN_NONBLOCK = 0x2, 0x100, 0o2000000, 0o4000


@dataclass(frozen=True, order=True)
class Cursor:
    """A place between two records; as text `generation:offset`."""

    generation: int = 0
    offset: int = 0

    def __str__(self) -> str:
        return f"{self.generation}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read back what `str` made; ValueError says what is wrong."""
        generation, mark, offset = text.partition(":")
        if not (mark and generation.isdigit() and offset.isdigit()):
            raise ValueError(f"a log cursor looks like 3:1024, not {text!r}")
        return cls(int(generation), int(offset))


@dataclass(frozen=True)
class LogEntry:
    """One record of a log."""

    time_ns: int
    """Nanoseconds since the Unix epoch."""
    stream: Literal["stdout", "stderr"]
    partial: bool
    """The newline did not come yet: the next record of this stream goes on with the same line."""
    text: bytes
    """Without the newline."""
    after: Cursor
    """Where reading goes on behind this record."""


def read(log_dir: Path, since: Cursor | None = None) -> Iterator[LogEntry]:
    """Yield what is complete in the log now, from `since` (or the oldest kept). Records cut short are skipped."""
    start = since or Cursor()
    for generation, path in _files(log_dir):
        if generation < start.generation:
            continue
        offset = start.offset if generation == start.generation else 0
        with contextlib.suppress(FileNotFoundError):
            yield from _read_file(path, generation, offset)


def tail(log_dir: Path, lines: int) -> list[LogEntry]:
    """Return the records of the last `lines` complete lines, oldest first."""
    kept: list[LogEntry] = []
    found = 0
    for generation, path in reversed(_files(log_dir)):
        try:
            records = list(_read_file(path, generation, 0))
        except FileNotFoundError:
            break
        for entry in reversed(records):
            if not entry.partial or not kept:
                found += 1
                if found > lines:
                    return kept[::-1]
            kept.append(entry)
    return kept[::-1]


async def follow(log_dir: Path, since: Cursor | None = None) -> AsyncIterator[LogEntry]:
    """Yield records as they are written, for ever; the caller stops it. The directory must be there."""
    cursor = since or Cursor()
    with _Changes(log_dir) as changes:
        while True:
            for entry in read(log_dir, cursor):
                cursor = entry.after
                yield entry
            await changes.next()


def _files(log_dir: Path) -> list[tuple[int, Path]]:
    try:
        paths = list(log_dir.iterdir())
    except FileNotFoundError:
        return []
    return sorted((int(found[1]), path) for path in paths if (found := _NAME.match(path.name)))


def _read_file(path: Path, generation: int, offset: int) -> Iterator[LogEntry]:
    with path.open("rb") as file:
        file.seek(offset)
        rest = b""
        while chunk := file.read(READ_BYTES):
            lines = (rest + chunk).split(b"\n")
            rest = lines.pop()
            for line in lines:
                offset += len(line) + 1
                if (entry := _parse(line, Cursor(generation, offset))) is not None:
                    yield entry


def _parse(line: bytes, after: Cursor) -> LogEntry | None:
    fields = line.split(b" ", 3)
    if len(fields) != 4 or fields[2] not in (b"P", b"F") or fields[1] not in (b"stdout", b"stderr"):
        return None
    try:
        when = parse_time(fields[0].decode("ascii"))
    except ValueError:
        return None
    return LogEntry(when, "stderr" if fields[1] == b"stderr" else "stdout", fields[2] == b"P", fields[3], after)


def parse_time(text: str) -> int:
    """Return nanoseconds since the epoch of `2026-01-02T03:04:05.123456789Z`; ValueError when it is none."""
    if len(text) != 30 or text[19] != "." or text[29] != "Z" or not text[20:29].isdigit():
        raise ValueError(f"{text!r} is no time with nanoseconds in UTC")
    return calendar.timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")) * 10**9 + int(text[20:29])


class _Changes:
    """Wakes when something in a directory is written or made (inotify)."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._handle = -1
        self._event = asyncio.Event()

    def __enter__(self) -> _Changes:
        libc = ctypes.CDLL(None, use_errno=True)
        self._handle = libc.inotify_init1(_IN_CLOEXEC | _IN_NONBLOCK)
        if self._handle >= 0:
            if libc.inotify_add_watch(self._handle, os.fsencode(self._directory), _IN_MODIFY | _IN_CREATE) < 0:
                os.close(self._handle)
                self._handle = -1
            else:
                asyncio.get_running_loop().add_reader(self._handle, self._ready)
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle >= 0:
            asyncio.get_running_loop().remove_reader(self._handle)
            os.close(self._handle)

    def _ready(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._handle, READ_BYTES)
        self._event.set()

    async def next(self) -> None:
        """Wait for a change since the last call returned; a short poll when the host has no inotify watch left."""
        if self._handle < 0:
            await asyncio.sleep(LOST_INOTIFY_POLL_S)
            return
        await self._event.wait()
        self._event.clear()
