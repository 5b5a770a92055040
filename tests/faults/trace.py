"""What the store said while a fault went through the cluster, with the time at which a surviving machine saw it."""

from __future__ import annotations

import base64
import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tests.lab import Lab, until

ROOT = "/fleet/v1/"
START_TIMEOUT_S = 60.0
LOG_PAUSE_S = 0.01


@dataclass(frozen=True)
class Seen:
    """One change of a key, or one line of a log."""

    at: float
    """Wall clock, seconds."""
    key: str
    """Without the root. Of a log line: the machine and the file."""
    value: str | None
    """None: deleted."""
    revision: int = 0


class StoreTrace:
    """Watches all of the cluster's keys with etcdctl on one machine, and its logs, as a context manager."""

    def __init__(self, lab: Lab, machine: str) -> None:
        self._lab = lab
        self._machine = machine
        self._ended = threading.Event()
        self.seen: list[Seen] = []
        self.lines: list[Seen] = []

    def __enter__(self) -> StoreTrace:
        command = ("etcdctl", "watch", "--prefix", ROOT, "-w", "json")
        self._process = self._lab.popen(self._machine, *command)
        folder = Path(self._lab.machine(self._machine)["log"]).parent
        own = ["data/log/kvstore.log"] if self._lab.store == "own" else []
        logs = [folder / name for name in ("fleetd.log", *own)]
        self._threads = [
            threading.Thread(target=self._read, daemon=True),
            *(threading.Thread(target=self._follow, args=(path, path.stat().st_size), daemon=True) for path in logs),
        ]
        for thread in self._threads:
            thread.start()
        probe = f"probe/{time.time_ns()}"  # the watch stands when it shows a write that came after it

        def stands() -> bool:
            self._lab.attempt(self._machine, "etcdctl", "put", ROOT + probe, "1")
            return any(one.key == probe for one in self.seen)

        until(f"a watch on {self._machine}", stands, START_TIMEOUT_S)
        self._lab.attempt(self._machine, "etcdctl", "del", ROOT + probe)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._lab.end(self._process)
        for thread in self._threads:
            thread.join(START_TIMEOUT_S)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            now = time.time()
            try:
                said = json.loads(line)
            except ValueError:
                continue
            for event in said.get("Events") or []:
                kv = event["kv"]
                key = base64.b64decode(kv["key"]).decode().removeprefix(ROOT)
                value = None if event.get("type") == 1 else base64.b64decode(kv.get("value", "")).decode()
                self.seen.append(Seen(now, key, value, int(kv["mod_revision"])))

    def _follow(self, path: Path, offset: int) -> None:
        with path.open("rb") as file:
            file.seek(offset)
            while not self._ended.is_set():
                for line in file.read().decode(errors="replace").splitlines():
                    self.lines.append(Seen(time.time(), f"{self._machine} {path.name}", line))
                self._ended.wait(LOG_PAUSE_S)

    def when(self, prefix: str, *, after: float, deleted: bool = False) -> float | None:
        """When a key below `prefix` was first put, or deleted, after a moment; None when it was not."""
        return next((one.at for one in self._since(prefix, after) if deleted == (one.value is None)), None)

    def gone(self, prefixes: tuple[str, ...], after: float) -> dict[str, float]:
        """Keys below the prefixes that were deleted after a moment -> when."""
        return {one.key: one.at for prefix in prefixes for one in self._since(prefix, after) if one.value is None}

    def said(self, what: str, *, after: float) -> float | None:
        """When a log first said `what` after a moment."""
        return next((one.at for one in list(self.lines) if one.at >= after and what in str(one.value)), None)

    def _since(self, prefix: str, after: float) -> list[Seen]:
        return [one for one in list(self.seen) if one.at >= after and one.key.startswith(prefix)]

    def text(self, after: float) -> str:
        """Everything since a moment, in order, with seconds from then."""
        everything = sorted([*self.seen, *self.lines], key=lambda one: one.at)
        return "\n".join(
            f"  {one.at - after:+7.3f} s  {one.key} {'(deleted)' if one.value is None else one.value[:160]}"
            for one in everything
            if one.at >= after
        )
