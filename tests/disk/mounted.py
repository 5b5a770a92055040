"""A `fleet-disk` that is mounted, as a context manager."""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

from cli.lab.disk.control import Control, Loss, program, start

END_S = 10.0
LOSSES: tuple[Loss, ...] = ("all", "torn", "scattered")


@functools.cache
def missing() -> str:
    """Why no such disk can be mounted here, or nothing: it is tried once."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "there is no /dev/fuse that this user may open"
    if os.geteuid() != 0:
        return "mounting needs root"
    if not program().exists():
        return "fleet-disk was not built: run make native"
    with tempfile.TemporaryDirectory() as directory:
        try:
            with Disk(Path(directory)):
                return ""
        except OSError as error:
            return str(error)


class Disk(Control):
    """Use as `with Disk(directory) as disk`; what is to be on it goes below `disk.path`."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory / "socket")
        self.directory, self.path = directory, directory / "disk"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Disk:
        backing = self.directory / "backing"
        for one in (backing, self.path):
            one.mkdir(parents=True, exist_ok=True)
        self.process = start(program(), backing, self.path, self.socket)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        assert self.process is not None and self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        # It does that itself, unless it was killed.
        subprocess.run(["umount", "-l", self.path], capture_output=True, check=False)
