"""A `fleet-disk` that is mounted: a context manager, and its commands (`src/control.rs`)."""

from __future__ import annotations

import functools
import os
import select
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Literal

ROOT = Path(__file__).resolve().parents[2]
START_S = 10.0
END_S = 10.0
Loss = Literal["all", "torn", "scattered"]
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


def program() -> Path:
    """Where cargo puts it."""
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/fleet-disk"


class Disk:
    """Use as `with Disk(directory) as disk`; what is to be on it goes below `disk.path`."""

    def __init__(self, directory: Path) -> None:
        self._backing, self.path, self._socket = directory / "backing", directory / "disk", directory / "socket"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Disk:
        for one in (self._backing, self.path):
            one.mkdir(parents=True, exist_ok=True)
        # A socket's path is short, wherever the tests' directory is.
        words = [str(program()), str(self._backing), str(self.path), "socket"]
        self._process = subprocess.Popen(
            words, cwd=self._socket.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], START_S)
        told = self._process.stdout.readline().decode() if ready else "no word"
        if told != "ready\n":
            self.__exit__(None, None, None)
            raise OSError(f"fleet-disk did not start: {told.strip()}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        # It does that itself, unless it was killed.
        subprocess.run(["umount", "-l", self.path], capture_output=True, check=False)

    def lose(self, loss: Loss, seed: int) -> str:
        """Lose power; whoever used the disk must have been killed. Returns how much was not synced."""
        return self._say(f"lose {loss} {seed}")

    def fail(self, what: Literal["read", "write", "sync"], error: Literal["EIO", "ENOSPC", "none"]) -> None:
        """Let such requests fail from now on, or no longer."""
        self._say(f"fail {what} {error}")

    def slow(self, milliseconds: int) -> None:
        """Let every sync take so long."""
        self._say(f"slow {milliseconds}")

    def state(self) -> dict[str, int]:
        """`waiting` bytes that were not synced, and `syncs` so far."""
        return {name: int(count) for name, count in (word.split("=") for word in self._say("state").split())}

    def _say(self, command: str) -> str:
        directory = os.open(self._socket.parent, os.O_PATH)
        try:
            with socket.socket(socket.AF_UNIX) as talk:
                talk.settimeout(END_S)
                talk.connect(f"/proc/self/fd/{directory}/socket")
                talk.sendall(f"{command}\n".encode())
                answer = talk.makefile().readline().strip()
        finally:
            os.close(directory)
        word, _, rest = answer.partition(" ")
        if word != "ok":
            raise OSError(answer or "fleet-disk did not answer")
        return rest
