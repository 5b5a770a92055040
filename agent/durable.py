"""Files that survive a power loss: replaced whole or not at all, and on disk before the caller goes on."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)


def replace(path: Path, data: bytes) -> None:
    """Make `data` the content of `path`; after a crash either the old or the new one is there (fsync(2), rename(2)).

    Raises OSError; the old content stays then.
    """
    fresh = path.with_name(path.name + ".new")
    with fresh.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Let the names in a folder be on disk: a file made, renamed or removed. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file_system(folder: Path) -> None:
    """Let everything of the file system that holds a folder be on disk (syncfs(2), which `os` has not).

    For a tree of many files, where one fsync(2) each would take longer. Raises OSError.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _libc.syncfs(handle) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(handle)
