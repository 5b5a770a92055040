"""Streams of ours, a JSON object a line: what happens to units (for waiting), and a unit's journal."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from aiohttp import web

from fleetd.api.errors import ApiError
from fleetd.registry import Registry, keys, records
from fleetd.registry.follow import Changed, follow
from kvstore.client import prefix_end

Journal = Callable[[str, int, bool], AsyncIterator[Mapping[str, Any]]]
"""journal(unit, lines, follow): lines of a unit, wherever it runs; `lines` 0 for all."""
KINDS = frozenset({"units", "placements", "states", "reasons", "presence"})
"""What users are told of. All of it lies behind `placements/`, so unit files and containers are not even read."""
HEARTBEAT_S = 15.0
"""A line is sent at least this often, so that a client that is gone is noticed."""


def event_of(key: bytes, value: bytes | None, revision: int = 0) -> dict[str, Any] | None:
    """A record's change as an event for users; None when it is none of theirs."""
    kind, names = keys.split(key)
    if kind not in KINDS or not names:
        return None
    event: dict[str, Any] = {"kind": kind, "gone": value is None, "revision": revision}
    if kind == "presence":
        event["machine"] = names[0]
    elif kind in ("placements", "states"):
        event["machine"], event["unit"] = names[0], names[-1]
    else:
        event["unit"] = names[0]
    if value is not None:
        record = keys.decode(key, value)
        del record["v"]
        event |= record
    return event


class StreamRoutes:
    """/fleetd/v1/events, /fleetd/v1/explain, /fleetd/v1/journal."""

    def __init__(self, registry: Registry, journal: Journal | None) -> None:
        self._registry = registry
        self._journal = journal

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/fleetd/v1/events", self.events),
            web.get("/fleetd/v1/explain/{name}", self.explain),
            web.get("/fleetd/v1/states", self.states),
            web.get("/fleetd/v1/journal/{name}", self.journal),
        ]

    async def events(self, request: web.Request) -> web.StreamResponse:
        """The units as they are now, one event a record, then {"kind": "now"}, then changes. `unit=` (repeatable)
        selects units."""
        wanted = set(request.query.getall("unit", []))
        answer = await self._open(request)
        async with aclosing(self._events(wanted)) as events:
            await self._send(answer, events)
        return answer

    async def _events(self, wanted: set[str]) -> AsyncGenerator[Mapping[str, Any], None]:
        def selected(event: dict[str, Any] | None) -> bool:
            return event is not None and (not wanted or event.get("unit", "") in wanted or "unit" not in event)

        seen: set[bytes] = set()
        async for change in follow(self._registry.client, keys.PLACEMENTS, prefix_end(keys.ROOT)):
            if isinstance(change, Changed):
                for item in change.events:
                    value = item.kv.value if item.type == "put" else None
                    (seen.discard if value is None else seen.add)(item.kv.key)
                    event = event_of(item.kv.key, value, item.kv.mod_revision)
                    if event is not None and selected(event):
                        yield event
                continue
            now = {kv.key for kv in change.kvs}
            for key in seen - now:
                event = event_of(key, None)
                if event is not None and selected(event):
                    yield event
            for kv in change.kvs:
                event = event_of(kv.key, kv.value, kv.mod_revision)
                if event is not None and selected(event):
                    yield event
            seen = now
            yield {"kind": "now", "revision": change.revision}

    async def explain(self, request: web.Request) -> web.Response:
        """Why a unit is in the state that it is in."""
        name = request.match_info["name"]
        wish = await self._registry.unit(name)
        if wish is None:
            raise ApiError(404, f"unit {name} does not exist")
        placed = [item.machine for item in await self._registry.placements_of([name])]
        states = await self._registry.states_of([name])
        return web.json_response(
            {
                "name": name,
                "desired": wish.desired,
                "machines": placed,
                "reason": await self._registry.reason(name),
                "states": [{"machine": item.machine, **json.loads(records.state_value(item.state))} for item in states],
            }
        )

    async def states(self, request: web.Request) -> web.Response:
        """Every reported state in full (fleet's /state has less)."""
        placed = {(item.machine, item.unit) for item in await self._registry.placements()}
        found = [item for item in await self._registry.states() if (item.machine, item.state.unit) in placed]
        return web.json_response(
            {
                "states": [
                    {"unit": item.state.unit, "machine": item.machine, **json.loads(records.state_value(item.state))}
                    for item in sorted(found, key=lambda item: (item.state.unit, item.machine))
                ]
            }
        )

    async def journal(self, request: web.Request) -> web.StreamResponse:
        """The lines of a unit: `lines=` how many of the last ones (0: all), `follow=true` to go on."""
        name = request.match_info["name"]
        if await self._registry.unit(name) is None:
            raise ApiError(404, f"unit {name} does not exist")
        if self._journal is None:
            raise ApiError(501, "this fleetd has no journal")
        lines = request.query.get("lines", "10")
        if not lines.isdigit():
            raise ApiError(400, f"lines={lines} is not a number")
        answer = await self._open(request)
        await self._send(answer, self._journal(name, int(lines), request.query.get("follow", "") == "true"))
        return answer

    @staticmethod
    async def _open(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await answer.prepare(request)
        return answer

    @staticmethod
    async def _send(answer: web.StreamResponse, events: AsyncIterator[Mapping[str, Any]]) -> None:
        pending = asyncio.ensure_future(anext(events, None))
        try:
            while True:
                done, _ = await asyncio.wait({pending}, timeout=HEARTBEAT_S)
                if not done:
                    await answer.write(b'{"kind":"alive"}\n')
                    continue
                event = pending.result()
                if event is None:
                    return
                await answer.write(json.dumps(event, separators=(",", ":")).encode() + b"\n")
                pending = asyncio.ensure_future(anext(events, None))
        except ConnectionError:
            return
        finally:
            pending.cancel()
            await asyncio.gather(pending, return_exceptions=True)
