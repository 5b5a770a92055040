"""The machine routes: fleet's list of living machines, its discovery document, and our cluster status."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from fleetd.api.paging import page
from fleetd.model import MachineEntity
from fleetd.registry import Registry
from kvstore.errors import StoreError

Status = Callable[[], Awaitable[Mapping[str, Any]]]


def discovery() -> dict[str, Any]:
    """The document that describes fleet's API v1, in the form of the discovery service; rootUrl is for the client to
    set."""
    name = {"name": {"type": "string", "location": "path", "required": True}}
    token = {"nextPageToken": {"type": "string", "location": "query"}}
    return {
        "kind": "discovery#restDescription",
        "discoveryVersion": "v1",
        "id": "fleet:v1",
        "name": "fleet",
        "version": "v1",
        "protocol": "rest",
        "rootUrl": "http://example.com/",
        "servicePath": "fleet/v1/",
        "basePath": "/fleet/v1/",
        "resources": {
            "Machines": {"methods": {"List": _method("GET", "machines", token)}},
            "Units": {
                "methods": {
                    "List": _method("GET", "units", token),
                    "Get": _method("GET", "units/{name}", name),
                    "Set": _method("PUT", "units/{name}", name),
                    "Delete": _method("DELETE", "units/{name}", name),
                }
            },
            "UnitState": {
                "methods": {
                    "List": _method(
                        "GET",
                        "state",
                        {
                            **token,
                            "machineID": {"type": "string", "location": "query"},
                            "unitName": {"type": "string", "location": "query"},
                        },
                    )
                }
            },
        },
    }


def _method(verb: str, path: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {"httpMethod": verb, "path": path, "parameters": dict(parameters)}


class MachineRoutes:
    """/fleet/v1/machines, /fleet/v1/discovery, /fleetd/v1/status."""

    def __init__(self, registry: Registry, status: Status | None) -> None:
        self._registry = registry
        self._status = status

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/fleet/v1/machines", self.list_machines),
            web.get("/fleet/v1/discovery", self.discovery),
            web.get("/fleetd/v1/status", self.status),
        ]

    async def list_machines(self, request: web.Request) -> web.Response:
        present = await self._registry.presences()
        known = {machine.id: machine for machine in await self._registry.machines()}
        entities = []
        for machine in sorted(present):
            address = present[machine].address or (known[machine].address if machine in known else "")
            entity = MachineEntity(
                id=machine,
                primaryIP=address,
                metadata=dict(known[machine].metadata) if machine in known else {},
            )
            entities.append(entity)
        chosen, more = page(request, entities, lambda entity: entity.id)
        return web.json_response({"machines": [e.model_dump(by_alias=True) for e in chosen], **more})

    async def discovery(self, request: web.Request) -> web.Response:
        return web.json_response(discovery())

    async def status(self, request: web.Request) -> web.Response:
        """What the cluster is doing: who leads the engine, its alarm, and what the machine adds."""
        answer: dict[str, Any] = dict(await self._status()) if self._status is not None else {}
        answer |= {"engineLeader": "", "alarm": ""}
        if answer.get("joined", True):
            with contextlib.suppress(StoreError):
                answer["engineLeader"] = await self._registry.engine_leader()
                answer["alarm"] = await self._registry.alarm()
        return web.json_response(answer)
