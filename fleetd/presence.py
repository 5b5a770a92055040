"""Feeds `fleet-presence`, the native process that holds this machine's lease: tells it that fleetd lives, and hears of
the lease. That process outlives fleetd and is adopted like the store.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from fleetd.processes import Program
from fleetd.registry.records import LEASE_TTL_S

log = logging.getLogger("fleetd.presence")

GRACE_S = 60
CHECK_IN_S = 1.0
CONNECT_RETRY_S = 0.05
PAGE = "presence.page"
"""In the run directory: when the store answered last, for the monitors of units with StopWhenIsolated=."""
LINE_BYTES = 64 * 1024

HasLease = Callable[[int, bool | None], Awaitable[None]]


class MachineLease:
    """The machine's lease, as fleetd sees it."""

    def __init__(self, run_dir: Path, log_dir: Path, program: str, endpoints: Sequence[str]) -> None:
        self._socket = run_dir / "presence.sock"
        self._lease_file = run_dir / "lease.json"
        self._settings = run_dir / "presence.json"
        self._endpoints = list(endpoints)
        self._page = run_dir / PAGE
        self._program = Program("fleet-presence", [program, str(self._settings)], run_dir, log_dir, {})
        self._before = self._kept_lease()
        self._announced = 0
        self._accepted = False
        self._writer: asyncio.StreamWriter | None = None

    def _kept_lease(self) -> int:
        """The lease that an earlier fleetd of this boot reported under, 0 for none."""
        try:
            return int(json.loads(self._lease_file.read_text())["lease"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    @property
    def adopts(self) -> bool:
        """Whether an earlier fleetd of this boot has had a lease."""
        return self._before != 0

    def set_endpoints(self, endpoints: Sequence[str]) -> None:
        """Renew there from the next check-in on."""
        self._endpoints = list(endpoints)

    def announced(self, lease: int) -> None:
        """The cluster knows the machine under this lease: from now on its renewals count for StopWhenIsolated=."""
        self._announced = lease
        if self._writer is not None:
            self._writer.write(self._line(op="announced", lease=lease))

    async def run(self, has_lease: HasLease) -> None:
        """Keep the process running and call `has_lease(id, returning)` for each lease; runs until cancelled.

        `returning` is true when an earlier fleetd's lease was lost, false when it is still held, None once an earlier
        call has returned. A call that still tries when the next lease comes is cancelled: its lease is gone.
        """
        settings = {
            "endpoints": self._endpoints,
            "socket": str(self._socket),
            "lease_file": str(self._lease_file),
            "page": str(self._page),
            "ttl": LEASE_TTL_S,
            "grace": GRACE_S,
        }
        self._settings.write_text(json.dumps(settings))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._program.run(), name="fleet-presence")
            trying: asyncio.Task[None] | None = None
            while True:
                try:
                    reader, writer = await asyncio.open_unix_connection(str(self._socket), limit=LINE_BYTES)
                except OSError:
                    await asyncio.sleep(CONNECT_RETRY_S)
                    continue
                self._writer = writer
                if self._announced:
                    self.announced(self._announced)
                checking = asyncio.create_task(self._check_in(writer))
                try:
                    while line := await reader.readline():
                        said = json.loads(line)
                        if said.get("event") == "lease":
                            if trying is not None:
                                trying.cancel()
                                await asyncio.wait({trying})
                            trying = tasks.create_task(self._tell(has_lease, int(said["lease"])), name="lease")
                        elif said.get("ok") is False:
                            log.error("fleet-presence: %s", said.get("error"))
                except OSError as error:
                    log.warning("fleet-presence went away (%s); it is started again", error)
                finally:
                    self._writer = None
                    checking.cancel()
                    writer.close()

    async def _tell(self, has_lease: HasLease, lease: int) -> None:
        await has_lease(lease, None if self._accepted else self._before not in (0, lease))
        self._accepted = True

    async def _check_in(self, writer: asyncio.StreamWriter) -> None:
        """From fleetd's own event loop, so that a hung one is noticed."""
        sent: list[str] = []
        while True:
            if sent != self._endpoints:
                sent = self._endpoints
                writer.write(self._line(op="endpoints", endpoints=sent))
            writer.write(self._line(op="checkin"))
            try:
                await writer.drain()
            except OSError:
                return
            await asyncio.sleep(CHECK_IN_S)

    @staticmethod
    def _line(**fields: object) -> bytes:
        return json.dumps(fields).encode() + b"\n"
