"""The API's routes about the machine itself: ping, version, info."""

from __future__ import annotations

import asyncio
import os
import platform
import socket

from aiohttp import web

from agent.containers.container import Containers

API_VERSION, MIN_API_VERSION = "1.43", "1.24"
VERSION = "24.0.0-fleetd"


class MachineRoutes:
    """Handlers that answer what this is."""

    def __init__(self, containers: Containers) -> None:
        self._containers = containers

    def routes(self) -> list[web.RouteDef]:
        """What is served."""
        return [
            web.get("/_ping", self._ping),
            web.get("/version", self._version),
            web.get("/info", self._info),
        ]

    async def _ping(self, request: web.Request) -> web.Response:
        headers = {"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache"}
        return web.Response(text="" if request.method == "HEAD" else "OK", headers=headers)

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "Version": VERSION,
                "ApiVersion": API_VERSION,
                "MinAPIVersion": MIN_API_VERSION,
                "Os": "linux",
                "Arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
                "KernelVersion": platform.release(),
                "GitCommit": "",
                "GoVersion": "",
                "BuildTime": "",
                "Platform": {"Name": "fleetd"},
                "Components": [],
            }
        )

    async def _info(self, request: web.Request) -> web.Response:
        records = self._containers.list()
        images = await asyncio.to_thread(self._containers.images.all)
        running = sum(record.state == "running" for record in records)
        return web.json_response(
            {
                "ID": socket.gethostname(),
                "Name": socket.gethostname(),
                "Containers": len(records),
                "ContainersRunning": running,
                "ContainersPaused": 0,
                "ContainersStopped": len(records) - running,
                "Images": len(images),
                "Driver": "overlay2",
                "ServerVersion": VERSION,
                "OSType": "linux",
                "Architecture": platform.machine(),
                "KernelVersion": platform.release(),
                "NCPU": os.cpu_count(),
                "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
                "Plugins": {"Volume": ["local"], "Network": ["bridge", "host", "null"], "Log": ["json-file"]},
            }
        )
