"""The few system calls about namespaces and mounts that Python 3.11 lacks. No knowledge of labs."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

NEW_MOUNT = 0x00020000
NEW_CGROUP = 0x02000000
NEW_UTS = 0x04000000
NEW_IPC = 0x08000000
NEW_PID = 0x20000000
NEW_NET = 0x40000000

MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18

_libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Move this process (for NEW_PID: its children) into new namespaces; OSError when refused."""
    _check(_libc.unshare(flags), "unshare")


def enter(path: Path, kind: int) -> None:
    """Move this thread into the namespace that `path` names."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(handle, kind), str(path))
    finally:
        os.close(handle)


def mount(source: str, target: str | Path, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Mount; OSError names the target."""
    result = _libc.mount(
        source.encode(), os.fsencode(target), kind.encode() or None, ctypes.c_ulong(flags), options.encode() or None
    )
    _check(result, str(target))


def bind(source: str | Path, target: str | Path) -> None:
    """Show a file or directory in a second place."""
    mount(str(source), target, flags=MS_BIND | MS_REC)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
