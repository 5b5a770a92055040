"""Journals of units have a limit in all, also those of units that are gone: folders of ended processes are dropped, the
oldest first, but what the last run of a unit that is here left after all others. What a folder holds is `journal`'s
affair; each is bounded by its monitor.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agent import journal

LOOK_EVERY_S = 300.0
MOST_BYTES = 4 << 30
MOST_SHARE = 0.1
"""Of the file system's size."""
GONE_KEPT_S = 30 * 86400.0
"""How long the journal of a unit stays that wrote nothing more and is not here."""
SETTLED_S = 60.0
"""What was written in so recent a time is left alone: a process may just have begun."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Folder:
    path: Path
    written: float
    size: int


def limit(root: Path) -> int:
    """How many bytes the journals may take on this disk."""
    disk = os.statvfs(root)
    return min(MOST_BYTES, int(disk.f_frsize * disk.f_blocks * MOST_SHARE))


def sweep(root: Path, in_use: Collection[str], here: Collection[str], most: int, now: float) -> list[Path]:
    """Drop folders until all take at most `most` bytes, and those of units not `here` that are too old; answer which.
    `in_use` holds full paths of folders that are written, or of units of which nobody knows which are."""
    found = [_look(path) for path in _folders(root)]
    total = sum(folder.size for folder in found)
    ended = [folder for folder in found if not {str(folder.path), str(folder.path.parent)} & set(in_use)]
    last = _last([one.path for one in ended if one.path.parent.name in here])
    dropped = []
    for folder in sorted(ended, key=lambda one: (one.path in last, one.written)):
        if now - folder.written < SETTLED_S:
            continue
        old = folder.path.parent.name not in here and now - folder.written > GONE_KEPT_S
        if total <= most and not old:
            continue
        shutil.rmtree(folder.path, ignore_errors=True)
        total -= folder.size
        dropped.append(folder.path)
    _drop_empty(root, here, now)
    return dropped


def _last(folders: Iterable[Path]) -> set[Path]:
    """The youngest of each unit and phase, given the older ones first."""
    return set({(path.parent, journal.phase(path)): path for path in folders}.values())


def _folders(root: Path) -> Iterator[Path]:
    for unit in root.iterdir() if root.is_dir() else ():
        if unit.is_dir():
            yield from journal.folders(unit)


def _look(path: Path) -> _Folder:
    """When a folder was written last, and what it takes; one that vanishes meanwhile takes what was seen of it."""
    written, size = 0.0, 0
    with contextlib.suppress(FileNotFoundError):
        for one in (path, *path.iterdir()):
            status = one.stat()
            written = max(written, status.st_mtime)
            size += status.st_blocks * 512
    return _Folder(path, written, size)


def _drop_empty(root: Path, here: Collection[str], now: float) -> None:
    for unit in root.iterdir() if root.is_dir() else ():
        with contextlib.suppress(OSError):  # it is not empty, or gone
            if unit.name not in here and now - unit.stat().st_mtime > SETTLED_S:
                unit.rmdir()


def _sweep_now(root: Path, in_use: Collection[str], here: Collection[str]) -> list[Path]:
    return sweep(root, in_use, here, limit(root), time.time()) if root.is_dir() else []


async def run(
    root: Path, in_use: Callable[[], Awaitable[Collection[str]]], here: Callable[[], Collection[str]]
) -> None:
    """Sweep now and then, until cancelled; `in_use` answers when it knows, and `here` is asked after that."""
    while True:
        used = await in_use()
        try:
            dropped = await asyncio.to_thread(_sweep_now, root, used, here())
            if dropped:
                log.info("%d folders of %s are dropped, the oldest first", len(dropped), root)
        except OSError as error:
            log.error("the journals in %s can't be swept: %s", root, error)
        await asyncio.sleep(LOOK_EVERY_S)
