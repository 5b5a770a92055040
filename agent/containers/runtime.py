"""The OCI runtime of this machine, and of what kind it is by its own word: its file's name proves nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

NAMES = ("runc", "crun")
DEFAULT_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
ANSWER_TIMEOUT_S = 5.0


class NoRuntime(Exception):
    """None is installed."""


@dataclass(frozen=True)
class Runtime:
    """A program that makes containers."""

    path: str
    is_runc: bool
    """Its containers' init waits at runc's gate; otherwise `start` has to be called."""
    file: tuple[int, int, int]
    """Device, inode and time of the program's file: another one is asked anew."""


def path() -> str:
    """Where it is. Raises NoRuntime."""
    for name in NAMES:
        if (found := shutil.which(name, path=os.environ.get("PATH", DEFAULT_PATH))) is not None:
            return found
    raise NoRuntime(f"none of the container runtimes {', '.join(NAMES)} is installed")


def find(known: Runtime | None = None) -> Runtime:
    """The runtime; one that is `known` already is not asked again what it is. Raises NoRuntime."""
    where = path()
    status = Path(where).stat()
    file = (status.st_dev, status.st_ino, status.st_mtime_ns)
    if known is not None and (known.path, known.file) == (where, file):
        return known
    return Runtime(where, _says(where).startswith("runc version"), file)


def _says(program: str) -> str:
    """What `--version` prints; nothing for one that does not answer: then it is called as any runtime is."""
    try:
        done = subprocess.run(
            [program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=ANSWER_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace")
