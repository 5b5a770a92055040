"""A clock of a process's own. The machine's is never touched.

Linux has one wall clock for all (a time namespace moves only the monotonic ones), so a library is laid between the
process and it (`clock.c`). The monotonic clock does not jump while a process runs, here as on any machine; but each
start of a member finds another one, in a time namespace, as after a boot.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")
FURTHEST_S = 500_000_000
"""At most so far from the machine's clock: about sixteen years."""


def missing() -> str:
    """Why clocks can't be moved here, or nothing."""
    return "" if shutil.which("cc") else "there is no C compiler (cc)"


def build(directory: Path) -> Path:
    """Make the library."""
    library = directory / "clock.so"
    command = ["cc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), str(SOURCE)]
    subprocess.run(command, check=True, capture_output=True)
    return library


class Clock:
    """One process's clock; `path` is its file, which is made anew."""

    def __init__(self, library: Path, path: Path) -> None:
        self._library, self._path = library, path
        self._moved_s = 0.0
        self.uptime_s = 0
        """Added to the monotonic clock at the next start."""
        self.jump(0)

    def before(self) -> tuple[str, ...]:
        """What to put before a command, so that it goes by this clock; it is the same process in the end."""
        monotonic = [word for which in ("monotonic", "boottime") for word in (f"--{which}", str(self.uptime_s))]
        return "unshare", "--time", *monotonic, "env", f"LD_PRELOAD={self._library}", f"SHIFTED_CLOCK={self._path}"

    def jump(self, seconds: float) -> None:
        """Move the wall clock from where it is, forwards or back; processes that run see it at once."""
        self._moved_s = max(-FURTHEST_S, min(FURTHEST_S, self._moved_s + seconds))
        # In place: a process has this very file mapped.
        with self._path.open("r+b" if self._path.exists() else "wb", buffering=0) as file:
            file.write(struct.pack("=q", int(self._moved_s * 1e9)))
