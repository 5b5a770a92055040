"""Serves the Docker Engine API on unix sockets: versions in paths, routes, errors. What routes do is next door."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

from agent.containers.container import Containers
from agent.dockerapi.containers import ContainerRoutes
from agent.dockerapi.errors import translate
from agent.dockerapi.images import ImageRoutes
from agent.dockerapi.machine import API_VERSION, MachineRoutes

SOCKET_MODE = 0o660
BODY_LIMIT_BYTES = 8 << 20
SHUTDOWN_S = 1.0
_VERSIONED = "/v{version:[0-9]+\\.[0-9]+}"


def is_free(path: Path) -> bool:
    """Whether nobody serves there: no file, or a socket that an earlier process of somebody's left behind.

    A link is its maker's, and so is what it points to.
    """
    if path.is_symlink():
        return False
    if not path.exists():
        return True
    if not path.is_socket():
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


class DockerApi:
    """The API of one machine's containers."""

    def __init__(self, containers: Containers, sockets: Sequence[Path]) -> None:
        self._containers = containers
        self._sockets = sockets

    async def run(self) -> None:
        """Serve until cancelled."""
        runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=SHUTDOWN_S)
        await runner.setup()
        try:
            for path in self._sockets:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.unlink(missing_ok=True)
                await web.UnixSite(runner, str(path)).start()
                path.chmod(SOCKET_MODE)
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()
            for path in self._sockets:
                path.unlink(missing_ok=True)

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[translate], client_max_size=BODY_LIMIT_BYTES)
        for rooms in (MachineRoutes, ContainerRoutes, ImageRoutes):
            for route in rooms(self._containers).routes():
                application.router.add_route(route.method, route.path, route.handler)
                application.router.add_route(route.method, _VERSIONED + route.path, route.handler)
                if route.method == "GET" and route.path == "/_ping":
                    application.router.add_route("HEAD", route.path, route.handler)
        application.on_response_prepare.append(_headers)
        return application


async def _headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Api-Version"] = API_VERSION
    response.headers["Ostype"] = "linux"
    response.headers["Server"] = "fleetd"
