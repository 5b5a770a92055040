"""The unit routes of fleet's API v1: units and their states."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from agent.units.errors import UnitError, UnitFileError
from agent.units.names import parse_name
from agent.units.parse import parse_text
from agent.units.verify import verify
from fleetd.api.errors import ApiError
from fleetd.api.paging import PAGE_SIZE, after, page
from fleetd.model import UnitEntity, UnitOption, UnitRequest, UnitsRequest, UnitStateEntity
from fleetd.registry import Registry, keys
from fleetd.registry.many import Missing, Wanted, write_many
from fleetd.registry.records import Desired, Placed, Wish
from fleetd.registry.registry import PlacedState

Body = TypeVar("Body", bound=BaseModel)
Accepts = Callable[[], Awaitable[str]]

RECORD_LIMIT = 1_400_000
"""Bytes of a unit file as the store keeps it, where some characters take up to six; a request holds 1.5 MiB."""


def unit_hash(text: str) -> str:
    """fleet's hash of a unit file: SHA1."""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def options_of(text: str) -> list[UnitOption]:
    """The settings of a file, in order."""
    try:
        settings, _ = parse_text(text)
    except UnitError:
        return []
    return [UnitOption(section=item.section, name=item.key, value=item.value) for item in settings]


def text_of(options: Iterable[UnitOption]) -> str:
    """Write settings as a unit file, a section once."""
    sections: dict[str, list[str]] = {}
    for option in options:
        sections.setdefault(option.section, []).append(f"{option.name}={option.value}")
    return "\n".join(f"[{section}]\n" + "\n".join(lines) + "\n" for section, lines in sections.items())


def current_state(wish: Wish, placed: Iterable[Placed], states: Mapping[str, PlacedState]) -> tuple[Desired, str]:
    """What the machines have made of a wish, and the machine, '' when there is none or more than one."""
    where = list(placed)
    if not where:
        return "inactive", ""
    machine = where[0].machine if len(where) == 1 else ""
    reported = [item for item in where if item.machine in states]
    return (reported[0].desired if reported else "inactive"), machine


class UnitRoutes:
    """/fleet/v1/units and /fleet/v1/state."""

    def __init__(self, registry: Registry, accepts: Accepts | None = None) -> None:
        self._registry = registry
        self._accepts = accepts

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/fleet/v1/units", self.list_units),
            web.get("/fleet/v1/units/{name}", self.get_unit),
            web.put("/fleet/v1/units/{name}", self.put_unit),
            web.delete("/fleet/v1/units/{name}", self.delete_unit),
            web.get("/fleet/v1/state", self.list_states),
            web.get("/fleetd/v1/files/{name}", self.get_file),
            web.get("/fleetd/v1/names", self.names),
            web.post("/fleetd/v1/units", self.post_units),
        ]

    async def _entities(self, wishes: Sequence[Wish]) -> list[UnitEntity]:
        names = {wish.name for wish in wishes}
        placed: dict[str, list[Placed]] = {}
        for item in await self._registry.placements_of(names):
            placed.setdefault(item.unit, []).append(item)
        states: dict[str, dict[str, PlacedState]] = {}
        for found in await self._registry.states_of(names):
            states.setdefault(found.state.unit, {})[found.machine] = found
        entities = []
        for wish in wishes:
            text = await self._registry.file(wish.file) or ""
            state, machine = current_state(wish, placed.get(wish.name, ()), states.get(wish.name, {}))
            entities.append(
                UnitEntity(
                    name=wish.name,
                    hash=unit_hash(text),
                    options=options_of(text),
                    desiredState=wish.desired,
                    currentState=state,
                    machineID=machine,
                )
            )
        return entities

    async def list_units(self, request: web.Request) -> web.Response:
        found = await self._registry.units_after(after(request), PAGE_SIZE + 1)
        wishes, more = page(request, found, lambda wish: wish.name)
        entities = await self._entities(wishes)
        return web.json_response({"units": [e.model_dump(by_alias=True) for e in entities], **more})

    async def names(self, request: web.Request) -> web.Response:
        """The names of all units, and in the same order the sha256 of their files and what is wanted of them (ours)."""
        wishes = await self._registry.units()
        files, desired = [w.file for w in wishes], [w.desired for w in wishes]
        return web.json_response({"names": [w.name for w in wishes], "files": files, "desired": desired})

    async def post_units(self, request: web.Request) -> web.Response:
        """Create many units, or change what is wanted of them (ours); all are verified before any is written."""
        asked = _read(UnitsRequest, await request.read(), request)
        if any(not item.name for item in asked.units):
            raise ApiError(400, "invalid unit entity: units: each needs a name")
        for item in asked.units:
            _refuse_template(item.name, item.desired_state)
        await self._check_accepts()
        await asyncio.to_thread(self._verify_all, asked)
        wanted = [Wanted(item.name, item.desired_state, item.text, item.replace) for item in asked.units]
        try:
            await write_many(self._registry, wanted)
        except Missing as error:
            raise ApiError(409, str(error)) from error
        return web.Response(status=204)

    def _verify_all(self, asked: UnitsRequest) -> None:
        for item in asked.units:
            if item.text is not None:
                self._verify(item.name, item.text)

    async def _check_accepts(self) -> None:
        if self._accepts is not None and (why := await self._accepts()):
            raise ApiError(503, why)

    async def get_unit(self, request: web.Request) -> web.Response:
        wish = await self._wish(request)
        (entity,) = await self._entities([wish])
        return web.json_response(entity.model_dump(by_alias=True))

    async def _wish(self, request: web.Request) -> Wish:
        name = request.match_info["name"]
        wish = await self._registry.unit(name)
        if wish is None:
            raise ApiError(404, f"unit {name} does not exist")
        return wish

    async def get_file(self, request: web.Request) -> web.Response:
        """The unit file as it was written (ours)."""
        wish = await self._wish(request)
        text = await self._registry.file(wish.file)
        if text is None:
            raise ApiError(404, f"the file of {wish.name} is not in the store")
        return web.json_response({"name": wish.name, "text": text, "hash": unit_hash(text), "desired": wish.desired})

    async def put_unit(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        asked = await self._asked(request, name)
        _refuse_template(name, asked.desired_state)
        await self._check_accepts()
        text = asked.text if asked.text is not None else text_of(asked.options or [])
        if not text:
            if await self._registry.set_desired(name, asked.desired_state) is None:
                raise ApiError(409, f"unit {name} does not exist, and options field is empty")
            return web.Response(status=204)
        self._verify(name, text)
        if asked.replace:
            await self._registry.replace_unit(name, text, asked.desired_state)
            return web.Response(status=201)
        if await self._registry.create_unit(name, text, asked.desired_state):
            return web.Response(status=201)
        if await self._registry.set_desired(name, asked.desired_state) is None:
            raise ApiError(409, f"unit {name} was destroyed at the same time; try again")
        return web.Response(status=204)

    async def _asked(self, request: web.Request, name: str) -> UnitRequest:
        asked = _read(UnitRequest, await request.read(), request)
        if asked.name and asked.name != name:
            raise ApiError(400, f"name in URL '{name}' differs from unit name in request body '{asked.name}'")
        return asked

    @staticmethod
    def _verify(name: str, text: str) -> None:
        try:
            verify(name, text)
        except UnitFileError as error:
            raise ApiError(400, str(error), line=error.line, column=error.column) from error
        except UnitError as error:
            raise ApiError(400, str(error)) from error
        if (size := len(keys.encode(text=text))) > RECORD_LIMIT:
            raise ApiError(400, f"{name}: the file takes {size} bytes in the store; the limit is {RECORD_LIMIT}")

    async def delete_unit(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if not await self._registry.destroy_unit(name):
            raise ApiError(404, f"unit {name} does not exist")
        return web.Response(status=204)

    async def list_states(self, request: web.Request) -> web.Response:
        machine, unit = request.query.get("machineID"), request.query.get("unitName")
        if unit is not None:
            found = [item for item in await self._registry.states_of([unit]) if machine in (None, item.machine)]
            found.sort(key=_state_key)
        else:
            found = await self._registry.states_after(after(request), PAGE_SIZE + 1, machine)
        chosen, more = page(request, found, _state_key)
        places = await self._registry.placements_at([(item.machine, item.state.unit) for item in chosen])
        placed = {(item.machine, item.unit): item.file for item in places}
        entities = []
        for item in [item for item in chosen if (item.machine, item.state.unit) in placed]:
            text = await self._registry.file(placed[item.machine, item.state.unit]) or ""
            entity = UnitStateEntity(
                name=item.state.unit,
                hash=unit_hash(text),
                machineID=item.machine,
                systemdLoadState=item.state.load,
                systemdActiveState=item.state.active,
                systemdSubState=item.state.sub,
            )
            entities.append(entity.model_dump(by_alias=True))
        return web.json_response({"states": entities, **more})


def _refuse_template(name: str, desired: Desired) -> None:
    """A template is there for its instances: it runs nowhere itself, as with systemd."""
    with contextlib.suppress(UnitError):  # what is no unit's name at all is refused by who looks for it
        parts = parse_name(name)
        if parts.instance == "" and desired != "inactive":
            raise ApiError(400, f"{name} is a template: name an instance of it, such as {parts.prefix}@1.{parts.kind}")


def _read(model: type[Body], data: bytes, request: web.Request) -> Body:
    """A request's body. Raises ApiError that names the field which is wrong."""
    if not (request.content_type or "").startswith("application/json"):
        raise ApiError(415, "unsupported content type: use application/json")
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise ApiError(
            400, ": ".join(word for word in ("invalid unit entity", place, problem["msg"]) if word)
        ) from error


def _state_key(item: PlacedState) -> str:
    """States come in the order of their keys, so that a page is a range of them."""
    return f"{item.machine}/{item.state.unit}"
