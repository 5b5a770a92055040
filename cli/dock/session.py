"""A terminal or two pipes joined with a container, until it has ended: streams, signals, the window's size.

The daemon may be killed meanwhile: the container lives on, and this waits until it can be asked again.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import termios
import time
import tty

from cli.dock import engine

TYPE_CHECKING = False  # as in `engine`: a start costs what it imports
if TYPE_CHECKING:
    from collections.abc import Collection
    from types import FrameType
    from typing import Any

RECONNECT_S = 120.0
RECONNECT_PAUSE_S = 0.1
READ_BYTES = 64 * 1024
DETACH = b"\x10\x11"
"""Ctrl-P, Ctrl-Q."""
LOST_CODE = 125
FORWARDED = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCONT")


class Session:
    """One container and this process's standard streams. Make it before the container is started, then `run`."""

    def __init__(
        self,
        container: str,
        streams: Collection[str],
        *,
        terminal: bool,
        condition: str = "next-exit",
        signals: bool = True,
    ) -> None:
        """`streams` of stdin, stdout, stderr; `condition` as the API's wait has it; `signals`: send ours on."""
        self._id = container
        self._streams = frozenset(streams)
        self._terminal = terminal
        self._condition = condition
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        self._pending: list[int] = []
        self._up = b""
        self._input = "stdin" in self._streams
        self._down = b""
        self._last = time.time()
        self._detached = False
        self._kept = b""
        if signals:
            for name in FORWARDED:
                signal.signal(getattr(signal, name), self._signal)
        if terminal:
            signal.signal(signal.SIGWINCH, self._signal)
        self._attach()
        self._wait()

    def _attach(self) -> None:
        query = {"stream": 1, **{name: int(name in self._streams) for name in ("stdin", "stdout", "stderr")}}
        answer = engine.request("POST", f"/containers/{self._id}/attach", query, upgrade=True)
        self._sock, self._down = answer.raw()
        self._sock.setblocking(False)

    def _wait(self) -> None:
        query = {"condition": self._condition}
        self._waiting = engine.request("POST", f"/containers/{self._id}/wait", query)

    def run(self) -> int:
        """Carry everything until the end; answer the container's exit code."""
        saved = termios.tcgetattr(0) if self._terminal and self._input and os.isatty(0) else None
        try:
            if saved is not None:
                tty.setraw(0)
            self._resize()
            while True:
                try:
                    self._carry()
                    if self._detached:
                        return 0
                    return self._code()
                except engine.Unreachable:
                    if (code := self._again()) is not None:
                        return code
        finally:
            if saved is not None:
                termios.tcsetattr(0, termios.TCSADRAIN, saved)

    def _code(self) -> int:
        text = self._waiting.read().strip()
        if not text:
            raise engine.Unreachable("the daemon went away")
        return int(json.loads(text)["StatusCode"])

    def _carry(self) -> None:
        """Until the container's output ends (or the connection does: the wait's answer tells which)."""
        self._output(b"")
        closed = False
        while not self._detached:
            reads: list[Any] = [self._sock, self._woken]
            if self._input and not self._up:
                reads.append(0)
            ready, writable, _ = select.select(reads, [self._sock] if self._up else [], [])
            if self._woken in ready:
                self._handle()
            if writable:
                with contextlib.suppress(BlockingIOError, ConnectionError):
                    self._up = self._up[self._sock.send(self._up) :]
            if 0 in ready:
                self._read_input()
            if self._sock in ready:
                try:
                    data = self._sock.recv(READ_BYTES)
                except ConnectionError:
                    data = b""
                if not data:
                    return
                self._output(data)
            if not self._input and not self._up and not closed and "stdin" in self._streams:
                closed = True
                with contextlib.suppress(OSError):
                    self._sock.shutdown(socket.SHUT_WR)

    def _read_input(self) -> None:
        try:
            data = os.read(0, READ_BYTES)
        except OSError:
            data = b""
        if not data:
            self._input = False
        data = self._kept + data
        self._kept = b""
        if self._terminal and DETACH in data:
            self._detached = True
            data = data.partition(DETACH)[0]
        elif self._terminal and self._input and data.endswith(DETACH[:1]):
            data, self._kept = data[:-1], DETACH[:1]  # the next key tells whether it is meant for us
        self._up += data

    def _output(self, data: bytes) -> None:
        if data:
            self._last = time.time()
        if self._terminal:
            _write(1, self._down + data)
            self._down = b""
            return
        self._down += data
        size = engine.FRAME_HEADER_BYTES
        while len(self._down) >= size:
            end = size + int.from_bytes(self._down[4:size], "big")
            if len(self._down) < end:
                return
            _write(2 if self._down[0] == engine.STDERR else 1, self._down[size:end])
            self._down = self._down[end:]

    def _signal(self, number: int, frame: FrameType | None) -> None:
        self._pending.append(number)
        with contextlib.suppress(OSError):
            self._wake.send(b"!")

    def _handle(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(READ_BYTES)
        while self._pending:
            number = self._pending.pop(0)
            if number == signal.SIGWINCH:
                self._resize()
                continue
            with contextlib.suppress(engine.EngineError):  # it ended a moment ago
                engine.order(f"/containers/{self._id}/kill", {"signal": signal.Signals(number).name})

    def _resize(self) -> None:
        if self._terminal and os.isatty(1):
            size = os.get_terminal_size(1)
            with contextlib.suppress(engine.EngineError):
                engine.order(f"/containers/{self._id}/resize", {"h": size.lines, "w": size.columns})

    def _again(self) -> int | None:
        """Find the daemon again; answer the exit code when the container has ended meanwhile."""
        self._sock.close()
        end = time.monotonic() + RECONNECT_S
        while True:
            try:
                found = engine.fetch(f"/containers/{self._id}/json")
                self._condition = "not-running"  # its removal is put off for us
                self._wait()
                if found["State"]["Running"] and self._input:
                    self._attach()
                    return None
                self._catch_up()
                return self._code()
            except engine.Unreachable:
                if time.monotonic() > end:
                    raise
                time.sleep(RECONNECT_PAUSE_S)

    def _catch_up(self) -> None:
        """What it wrote since, and writes until it ends, from its log."""
        query = {name: int(name in self._streams) for name in ("stdout", "stderr")}
        if not any(query.values()):
            return
        answer = engine.request(
            "GET", f"/containers/{self._id}/logs", {**query, "follow": 1, "since": f"{self._last:.9f}"}
        )
        self._sock, self._down = answer.sock, b""
        self._handle()
        while True:
            ready, _, _ = ([], [], []) if answer.held else select.select([self._sock, self._woken], [], [])
            if self._woken in ready:
                self._handle()
            if answer.held or self._sock in ready:
                if not (data := answer.some()):
                    return
                self._output(data)


def _write(handle: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(handle, data) :]
        except BlockingIOError:
            select.select([], [handle], [])
