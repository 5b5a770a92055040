"""The API's server: routes on a unix socket of mode 0660. What a request does is in the routes' own modules."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiohttp import web

from fleetd.api.errors import Joined, always, errors
from fleetd.api.machines import MachineRoutes, Status
from fleetd.api.metrics import Metrics
from fleetd.api.streams import Journal, StreamRoutes
from fleetd.api.units import Accepts, UnitRoutes
from fleetd.registry import Registry

SOCKET_MODE = 0o660
BODY_LIMIT = 3 * 1024 * 1024
"""Bytes of a request: a unit file, escaped."""
SHUTDOWN_S = 1.0


class ApiServer:
    """Serves the fleet API v1 and ours. `journal` and `status` are the machine's hooks; `joined` says why the machine
    is in no cluster yet, `accepts` why the cluster takes no units yet, '' for none."""

    def __init__(
        self,
        socket: Path,
        registry: Registry,
        *,
        journal: Journal | None = None,
        status: Status | None = None,
        joined: Joined = always,
        accepts: Accepts | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._socket = socket
        app = web.Application(middlewares=[errors(joined)], client_max_size=BODY_LIMIT)
        app.add_routes(UnitRoutes(registry, accepts).routes())
        app.add_routes(MachineRoutes(registry, status).routes())
        app.add_routes(StreamRoutes(registry, journal).routes())
        if metrics is not None:
            app.add_routes(metrics.routes())
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=SHUTDOWN_S)

    async def start(self) -> None:
        """Listen. A socket that is left of a process that died is replaced."""
        await self._runner.setup()
        try:
            self._socket.parent.mkdir(parents=True, exist_ok=True)
            self._socket.unlink(missing_ok=True)
            await web.UnixSite(self._runner, str(self._socket)).start()
            self._socket.chmod(SOCKET_MODE)
        except OSError as error:
            await self._runner.cleanup()
            raise OSError(f"can't listen on --api-socket {self._socket}: {error.strerror or error}") from error

    async def stop(self) -> None:
        """Stop listening and end what is open."""
        await self._runner.cleanup()
        self._socket.unlink(missing_ok=True)

    async def run(self) -> None:
        """Serve until cancelled."""
        await self.start()
        try:
            await asyncio.Event().wait()
        finally:
            await self.stop()
