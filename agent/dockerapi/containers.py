"""The API's routes for containers: orders, waiting, streams. How one looks as JSON is `views`' affair."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

from agent.containers.container import Containers
from agent.containers.life import NoContainer
from agent.containers.records import Record
from agent.docker_steps import ContainerFailure, UnitContainer
from agent.dockerapi import hijack, views
from agent.dockerapi.errors import ApiError, body, filters, flag, number
from agent.dockerapi.options import options_of, warnings
from agent.monitor import logfile
from agent.monitor.link import Attachment
from agent.units.values import signal

READ_BYTES = 1 << 16
READ_RECORDS = 256
"""Of a log at once; the monitor cuts a record at 16 KiB."""


class ContainerRoutes:
    """Handlers on a machine's containers."""

    def __init__(self, containers: Containers) -> None:
        self._containers = containers

    def routes(self) -> list[web.RouteDef]:
        """What is served."""
        return [
            web.get("/containers/json", self._list),
            web.post("/containers/create", self._create),
            web.get("/containers/{id}/json", self._inspect),
            web.post("/containers/{id}/start", self._start),
            web.post("/containers/{id}/stop", self._stop),
            web.post("/containers/{id}/restart", self._restart),
            web.post("/containers/{id}/kill", self._kill),
            web.post("/containers/{id}/wait", self._wait),
            web.post("/containers/{id}/attach", self._attach),
            web.post("/containers/{id}/resize", self._resize),
            web.get("/containers/{id}/logs", self._logs),
            web.delete("/containers/{id}", self._delete),
        ]

    async def _id(self, request: web.Request) -> str:
        name = request.match_info["id"]
        if (found := await self._containers.find(name)) is None:
            raise NoContainer(f"No such container: {name}")
        return found

    async def _list(self, request: web.Request) -> web.Response:
        wanted, limit = filters(request), number(request, "limit", 0)
        everything = flag(request, "all") or "status" in wanted or limit > 0
        records = [record for record in self._containers.list() if everything or record.state == "running"]
        records = [record for record in records if views.matches(record, wanted)]
        return web.json_response([views.summary(record) for record in (records[:limit] if limit > 0 else records)])

    async def _create(self, request: web.Request) -> web.Response:
        options = options_of(await body(request), request.query.get("name", ""))
        container = await self._containers.create(UnitContainer("", options, Path(), options.cgroup_parent))
        return web.json_response({"Id": container, "Warnings": warnings(options)}, status=201)

    async def _inspect(self, request: web.Request) -> web.Response:
        return web.json_response(views.details(self._containers.get(await self._id(request))))

    async def _start(self, request: web.Request) -> web.Response:
        container = await self._id(request)
        if self._containers.get(container).state == "running":
            return web.Response(status=304)
        await self._containers.start(container)
        return web.Response(status=204)

    async def _stop(self, request: web.Request) -> web.Response:
        container = await self._id(request)
        if self._containers.get(container).state != "running":
            return web.Response(status=304)
        await self._containers.stop(container, _patience(request))
        return web.Response(status=204)

    async def _restart(self, request: web.Request) -> web.Response:
        container = await self._id(request)
        await self._containers.stop(container, _patience(request))
        await self._containers.start(container)
        return web.Response(status=204)

    async def _kill(self, request: web.Request) -> web.Response:
        await self._containers.signal(await self._id(request), signal(request.query.get("signal") or "KILL"))
        return web.Response(status=204)

    async def _delete(self, request: web.Request) -> web.Response:
        container = await self._id(request)
        await self._containers.remove(container, force=flag(request, "force"), volumes=flag(request, "v"))
        return web.Response(status=204)

    async def _resize(self, request: web.Request) -> web.Response:
        container = await self._id(request)
        await self._containers.resize(container, number(request, "h", 24), number(request, "w", 80))
        return web.Response()

    async def _wait(self, request: web.Request) -> web.StreamResponse:
        container = await self._id(request)
        condition = request.query.get("condition") or "not-running"
        if condition not in ("not-running", "next-exit", "removed"):
            raise ApiError(400, f'invalid condition: "{condition}"')
        record = self._containers.get(container)
        wait = self._containers.wait_removed if condition == "removed" else self._containers.wait
        if condition == "next-exit" and record.state != "running":
            wait = self._containers.wait_next
        waiting = asyncio.ensure_future(
            _settled(record.code) if condition == "not-running" and record.state != "running" else wait(container)
        )
        await asyncio.sleep(0)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        try:
            await response.prepare(request)
            await response.write(b"\n")  # the headers wait for the first byte, and JSON may begin with white space
            code = await waiting
        finally:
            waiting.cancel()
        await response.write(json.dumps({"StatusCode": code}).encode() + b"\n")
        return response

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        container = await self._id(request)
        record = self._containers.get(container)
        attaching = asyncio.ensure_future(self._containers.attach(container))
        gone: asyncio.Future[bytes] | None = None
        await asyncio.sleep(0)
        tty = record.options.tty
        try:
            async with hijack.Hijacked(request, hijack.RAW if tty else hijack.MULTIPLEXED) as client:
                gone = asyncio.ensure_future(client.reader.read(READ_BYTES))
                await asyncio.wait((attaching, gone), return_when=asyncio.FIRST_COMPLETED)
                with contextlib.suppress(ContainerFailure, ConnectionError):
                    async with await attaching as streams:
                        await _pump(client, streams, gone, request, tty=tty)
        finally:
            attaching.cancel()
            if gone is not None:
                gone.cancel()
        return web.Response()

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        record = self._containers.get(await self._id(request))
        tty = record.options.tty
        wanted = {name for name in ("stdout", "stderr") if flag(request, name)}
        if not wanted:
            raise ApiError(400, "Bad parameters: you must choose at least one stream")
        response = web.StreamResponse(headers={"Content-Type": hijack.RAW if tty else hijack.MULTIPLEXED})
        stamped = flag(request, "timestamps")
        since, until = _moment(request, "since"), _moment(request, "until")
        await response.prepare(request)
        async for entries in self._entries(record, request):
            pieces = []
            for entry in entries:
                if entry.stream not in wanted or entry.time_ns < since or (until and entry.time_ns > until):
                    continue
                text = entry.text + (b"" if entry.partial else b"\r\n" if tty else b"\n")
                if stamped:
                    text = _stamp(entry.time_ns) + b" " + text
                pieces.append(text if tty else hijack.frame(entry.stream, text))
            if pieces:
                await response.write(b"".join(pieces))
            if until and entries[-1].time_ns > until:
                break
        return response

    async def _entries(self, record: Record, request: web.Request) -> AsyncIterator[list[logfile.LogEntry]]:
        place = Path(record.log_dir)
        tail = request.query.get("tail", "all")
        if not await asyncio.to_thread(place.is_dir):
            return
        cursor: logfile.Cursor | None = None
        if tail.isdigit():
            last = await asyncio.to_thread(logfile.tail, place, max(int(tail), 1))
            cursor = last[-1].after if last else None
            if last and int(tail):
                yield last
        else:
            async for entries in _read(place, None):
                cursor = entries[-1].after
                yield entries
        if not flag(request, "follow"):
            return
        following = logfile.follow(place, cursor)
        ended = asyncio.ensure_future(self._containers.wait(record.id))
        try:
            while True:
                step = asyncio.ensure_future(anext(following))
                await asyncio.wait((step, ended), return_when=asyncio.FIRST_COMPLETED)
                if not step.done():
                    step.cancel()
                    break
                entry = step.result()
                cursor = entry.after
                yield [entry]
            async for entries in _read(place, cursor):
                yield entries
        finally:
            ended.cancel()


async def _read(place: Path, cursor: logfile.Cursor | None) -> AsyncIterator[list[logfile.LogEntry]]:
    """What is in a log, a few records at a time: a long one neither holds up the others nor fills the memory."""
    entries = logfile.read(place, cursor)
    while few := await asyncio.to_thread(lambda: list(itertools.islice(entries, READ_RECORDS))):
        yield few


async def _pump(
    client: hijack.Hijacked, streams: Attachment, first: asyncio.Future[bytes], request: web.Request, *, tty: bool
) -> None:
    """Carry bytes both ways until the container has ended."""

    async def upwards() -> None:
        data = await first
        while data:
            await streams.write(data)
            data = await client.reader.read(READ_BYTES)
        await streams.write_eof()

    async with asyncio.TaskGroup() as tasks:
        upward = tasks.create_task(upwards()) if flag(request, "stdin") else None
        while (piece := await streams.read()) is not None:
            stream, data = piece
            if flag(request, stream):
                await client.write(data if tty else hijack.frame(stream, data))
        if upward is not None:
            upward.cancel()


async def _settled(code: int) -> int:
    return code


def _patience(request: web.Request) -> float | None:
    return float(number(request, "t", 0)) if "t" in request.query else None


def _moment(request: web.Request, name: str) -> int:
    """A time of the query, seconds since the epoch with a fraction, as nanoseconds; 0 when it is not given. Raises
    ApiError."""
    text = request.query.get(name) or "0"
    seconds, _, fraction = text.partition(".")
    try:
        return int(seconds or 0) * 1_000_000_000 + int(fraction[:9].ljust(9, "0") or 0)
    except ValueError as error:
        raise ApiError(400, f"{name}={text} is not a time in seconds since 1970") from error


def _stamp(time_ns: int) -> bytes:
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z".encode()
