"""Starts a `fleet-disk`, and gives it commands (`src/control.rs`). No knowledge of labs."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from pathlib import Path
from typing import Literal

PROGRAM = "fleet-disk"
DEVICE = Path("/dev/fuse")
START_S = 10.0
ANSWER_S = 10.0
Loss = Literal["all", "torn", "scattered"]
"""What a loss of power takes of what was not synced: all, all but a beginning, or any sectors."""
Request = Literal["read", "write", "sync"]
REQUESTS: tuple[Request, ...] = ("read", "write", "sync")
Failure = Literal["EIO", "ENOSPC", "none"]


def program() -> Path:
    """Where it is installed: beside the interpreter, as all native programs are."""
    return Path(sys.executable).parent / PROGRAM


def start(program: Path, backing: Path, mountpoint: Path, control: Path) -> subprocess.Popen[bytes]:
    """Mount a disk; it lives until its standard input is closed, or this process ends. OSError when it can't be."""
    process = subprocess.Popen(
        # A socket's path is short, wherever the directory is.
        [str(program), str(backing), str(mountpoint), control.name],
        cwd=control.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdin is not None and process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], START_S)
    told = process.stdout.readline().decode() if ready else "no word"
    if told != "ready\n":
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
        raise OSError(f"{PROGRAM} did not start: {told.strip()}")
    return process


class Control:
    """The socket of a disk that is mounted. Every command raises OSError when there is no answer, or a refusal."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket

    def lose(self, loss: Loss, seed: int) -> str:
        """Lose power; whoever used the disk must have been killed. Returns how much was not synced."""
        return self.say(f"lose {loss} {seed}")

    def cut(self, loss: Loss, seed: int) -> str:
        """Lose power, and stand still from then on: whoever uses the disk hangs until all are killed."""
        return self.say(f"cut {loss} {seed}")

    def fail(self, what: Request, error: Failure) -> None:
        """Let such requests fail from now on, or no longer."""
        self.say(f"fail {what} {error}")

    def slow(self, milliseconds: int) -> None:
        """Let every sync take so long."""
        self.say(f"slow {milliseconds}")

    def be_well(self) -> None:
        """Take all faults back."""
        for what in REQUESTS:
            self.fail(what, "none")
        self.slow(0)

    def state(self) -> dict[str, str]:
        """`waiting` bytes that were not synced, `syncs` so far, and the faults that are switched on."""
        return dict(word.split("=") for word in self.say("state").split())

    def say(self, command: str) -> str:
        """Send a line; returns what follows `ok` in the answer."""
        directory = os.open(self.socket.parent, os.O_PATH)
        try:
            with socket.socket(socket.AF_UNIX) as talk:
                talk.settimeout(ANSWER_S)
                talk.connect(f"/proc/self/fd/{directory}/{self.socket.name}")
                talk.sendall(f"{command}\n".encode())
                answer = talk.makefile().readline().strip()
        finally:
            os.close(directory)
        word, _, rest = answer.partition(" ")
        if word != "ok":
            raise OSError(answer or f"{PROGRAM} did not answer")
        return rest
