"""The fleet API v1 and ours, asked over the unix socket by our own client, on a real store."""

from __future__ import annotations

import asyncio
import stat
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agent.interfaces import UnitState
from fleetd.api import streams
from fleetd.api.client import ApiClient, ClientError
from fleetd.api.metrics import Metrics
from fleetd.api.server import ApiServer
from fleetd.engine import Engine
from fleetd.registry import Registry, keys, records
from fleetd.registry import registry as registry_module
from fleetd.registry.follow import Changed, Listed
from fleetd.registry.many import Wanted, write_many
from fleetd.registry.records import Machine, Placed, Wish
from kvstore.client import Client
from kvstore.model import Event, KeyValue, RangeResult, TxnResult
from tests.unit.fleetd.world import Member, members, store, until

OPTIONS = [{"section": "Service", "name": "ExecStart", "value": "/bin/sleep 9"}]
TEXT = "[Service]\nExecStart=/bin/sleep 9\n"


async def journal(unit: str, lines: int, follow: bool) -> AsyncIterator[Mapping[str, Any]]:
    for index in range(lines):
        yield {"time_ns": index, "machine": "a" * 32, "stream": "stdout", "text": f"{unit} {index}"}


@asynccontextmanager
async def served(directory: Path) -> AsyncIterator[tuple[ApiClient, Registry, list[Member]]]:
    with store(directory) as url:
        client = Client([url])
        registry = Registry(client, "a" * 32)
        server = ApiServer(directory / "fleet.sock", registry, journal=journal)
        await server.start()
        leader = asyncio.create_task(Engine(client, "a" * 32).run())
        try:
            async with members(client, "a" * 32, "b" * 32) as machines:
                yield ApiClient(f"unix://{directory}/fleet.sock"), registry, machines
        finally:
            leader.cancel()
            await asyncio.gather(leader, return_exceptions=True)
            await server.stop()
            await client.close()


async def ask(api: ApiClient, method: str, path: str, body: Any = None) -> Any:
    return await asyncio.to_thread(api.request, method, path, body)


async def test_metrics_need_neither_cluster_nor_store(tmp_path: Path) -> None:
    socket = tmp_path / "fleet.sock"
    metrics = Metrics({"engine": Counter(txn=2, range=1), "machine": Counter()}, lambda: True)
    async with Client(["http://127.0.0.1:1"]) as client:
        registry = Registry(client, "a" * 32)
        server = ApiServer(socket, registry, metrics=metrics, joined=lambda: "It is in no cluster yet.")
        await server.start()
        connector = aiohttp.UnixConnector(str(socket))
        async with aiohttp.ClientSession(connector=connector) as session, session.get("http://fleet/metrics") as answer:
            assert answer.status == 200 and answer.content_type == "text/plain"
            lines = [line for line in (await answer.text()).splitlines() if not line.startswith("#")]
        await server.stop()
    assert lines == [
        "fleetd_engine_leads 1",
        'fleetd_store_requests_total{sender="engine",request="range"} 1',
        'fleetd_store_requests_total{sender="engine",request="txn"} 2',
    ]


async def refused(api: ApiClient, method: str, path: str, body: Any = None) -> tuple[int, str]:
    with pytest.raises(ClientError) as error:
        await ask(api, method, path, body)
    return error.value.status, str(error.value)


async def test_a_unit_s_life_over_the_api(tmp_path: Path) -> None:
    async with served(tmp_path) as (api, registry, machines):
        assert stat.S_IMODE((tmp_path / "fleet.sock").stat().st_mode) == 0o660
        path = "/fleet/v1/units/x.service"
        await ask(api, "PUT", path, {"desiredState": "launched", "options": OPTIONS})
        await until(lambda: any(m.placed for m in machines))
        async with asyncio.timeout(60):
            while not await registry.states():
                await asyncio.sleep(0.02)
        unit = await ask(api, "GET", path)
        assert (unit["options"], unit["desiredState"], unit["currentState"]) == (OPTIONS, "launched", "launched")
        (state,) = (await ask(api, "GET", "/fleet/v1/state?unitName=x.service"))["states"]
        assert (state["machineID"], state["systemdActiveState"]) == (unit["machineID"], "active")
        assert (await ask(api, "GET", "/fleet/v1/state?machineID=none"))["states"] == []
        await ask(api, "PUT", path, {"desiredState": "inactive"})
        await until(lambda: not any(m.placed for m in machines))
        await ask(api, "DELETE", path)
        assert await refused(api, "GET", path) == (404, "unit x.service does not exist")


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"desiredState": "launched"}, 409, "options field is empty"),
        ({"desiredState": "flying", "options": OPTIONS}, 400, "desiredState"),
        ({"desiredState": "loaded", "options": OPTIONS, "name": "y.service"}, 400, "differs from unit name"),
        (
            {"desiredState": "loaded", "text": "[Service]\nExecStart=/bin/a\nTimeoutStopSec=abc\n"},
            400,
            "x.service:3:16",
        ),
        ([], 400, "invalid unit entity"),
    ],
)
async def test_bad_requests(tmp_path: Path, body: Any, status: int, words: str) -> None:
    async with served(tmp_path) as (api, _, _):
        found, text = await refused(api, "PUT", "/fleet/v1/units/x.service", body)
        assert found == status
        assert words in text


async def test_a_file_that_grows_too_large_as_a_record_is_refused_by_its_bytes(tmp_path: Path) -> None:
    async with served(tmp_path) as (api, _, _):
        body = {"desiredState": "inactive", "text": TEXT + "#" + "\x01" * 300_000 + "\n"}
        status, words = await refused(api, "PUT", "/fleet/v1/units/x.service", body)
        assert status == 400
        assert "the limit is 1400000" in words
        many = [
            {"name": f"u{i}.service", "desiredState": "inactive", "text": f"{TEXT}#{i}" + "\n" * 450_000}
            for i in range(2)
        ]
        await ask(api, "POST", "/fleetd/v1/units", {"units": many})
        assert (await ask(api, "GET", "/fleetd/v1/names"))["names"] == [item["name"] for item in many]


async def test_lists_come_in_pages(tmp_path: Path) -> None:
    async with served(tmp_path) as (api, registry, _):
        names = [f"u{i:03}.service" for i in range(230)]
        await asyncio.gather(*(registry.create_unit(name, TEXT, "inactive") for name in names))
        first = await ask(api, "GET", "/fleet/v1/units")
        assert len(first["units"]) == 100
        assert first["nextPageToken"]
        assert [unit["name"] for unit in await asyncio.to_thread(api.units)] == names
        status, text = await refused(api, "GET", "/fleet/v1/units?nextPageToken=%21")
        assert (status, text) == (400, "invalid value of nextPageToken query parameter")
        assert [m["id"] for m in await asyncio.to_thread(api.machines)] == ["a" * 32, "b" * 32]
        assert (await ask(api, "GET", "/fleet/v1/discovery"))["basePath"] == "/fleet/v1/"
        assert (await refused(api, "GET", "/nowhere"))[0] == 404


async def test_events_tell_what_is_and_what_becomes(tmp_path: Path) -> None:
    async with served(tmp_path) as (api, registry, _):
        await registry.create_unit("x.service", TEXT, "inactive")
        await registry.create_unit("other.service", TEXT, "launched")
        kinds: list[tuple[str, bool]] = []
        started = asyncio.Event()
        loop = asyncio.get_running_loop()

        def listen() -> None:
            for event in api.events(["x.service"]):
                assert event.get("unit") in (None, "x.service")
                if event["kind"] == "now":
                    loop.call_soon_threadsafe(started.set)
                elif event["kind"] != "presence":
                    kinds.append((event["kind"], event["gone"]))
                if event["kind"] == "states" and event["active"] == "active":
                    return

        task = asyncio.create_task(asyncio.to_thread(listen))
        async with asyncio.timeout(60):
            await started.wait()
            await registry.set_desired("x.service", "launched")
            await task
        assert kinds == [("units", False), ("units", False), ("placements", False), ("states", False)]


async def test_what_went_while_changes_were_missed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """History may be compacted between two changes: what was there before and is not listed any more is gone."""

    async def compacted(client: Client, prefix: bytes, end: bytes = b"") -> AsyncIterator[Listed | Changed]:
        kv = KeyValue(keys.unit("x.service"), Wish("x.service", "f", "inactive").value(), 5, 5, 1, 0)
        yield Listed(4, ())
        yield Changed(5, (Event("put", kv),))
        yield Listed(9, ())

    monkeypatch.setattr(streams, "follow", compacted)
    events = streams.StreamRoutes(Registry(Client(["http://127.0.0.1:1"]), "a"), None)._events(set())
    told = [(event["kind"], event.get("gone")) async for event in events]
    assert told == [("now", None), ("units", False), ("units", True), ("now", None)]


class Reading(Client):
    """Counts the records that are read."""

    records = 0

    async def get(self, *args: Any, **kwargs: Any) -> RangeResult:
        found = await super().get(*args, **kwargs)
        self.records += len(found.kvs)
        return found

    async def txn(self, *args: Any, **kwargs: Any) -> TxnResult:
        done = await super().txn(*args, **kwargs)
        self.records += sum(len(one.kvs) for one in done.responses if isinstance(one, RangeResult))
        return done


async def test_a_request_reads_what_it_answers_and_no_other_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store(tmp_path) as url:
        client = Reading([url])
        registry = Registry(client, "a" * 32)
        names = [f"u{i:03}.service" for i in range(350)]
        await write_many(registry, [Wanted(name, "launched", TEXT) for name in names])
        machines = ["a" * 32, "b" * 32]
        for machine in machines:
            await registry.register_machine(Machine(machine, "10.0.0.1"))
        for index, name in enumerate(names):
            machine = machines[index % 2]
            await client.put(keys.placement(machine, name), Placed(name, machine, "f", "launched").value())
            state = UnitState(name, 1, "loaded", "active", "running")
            await client.put(keys.state(machine, name), records.state_value(state))
        server = ApiServer(tmp_path / "fleet.sock", registry)
        await server.start()
        api = ApiClient(f"unix://{tmp_path}/fleet.sock")
        for path, most in (
            ("/fleetd/v1/explain/u007.service", 20),
            ("/fleet/v1/units/u007.service", 20),
            ("/fleet/v1/state?unitName=u007.service", 20),
            ("/fleet/v1/units", 320),
            ("/fleet/v1/state", 220),
            (f"/fleet/v1/state?machineID={machines[1]}", 220),
            ("/fleet/v1/units as with many machines", 320),
        ):
            if path.endswith(" as with many machines"):
                path = path.removesuffix(" as with many machines")
                monkeypatch.setattr(registry_module, "LOOKUPS", 1)
            client.records = 0
            await ask(api, "GET", path)
            assert client.records <= most, path
        units = await asyncio.to_thread(api.units)
        assert [(unit["name"], unit["machineID"], unit["currentState"]) for unit in units] == [
            (name, machines[index % 2], "launched") for index, name in enumerate(names)
        ]
        states = await asyncio.to_thread(api.fleet_states)
        assert sorted((state["name"], state["machineID"]) for state in states) == [
            (name, machines[index % 2]) for index, name in enumerate(names)
        ]
        await client.delete(keys.placement(machines[1], "u001.service"))
        states = (await ask(api, "GET", f"/fleet/v1/state?machineID={machines[1]}"))["states"]
        assert states[0]["name"] == "u003.service", "what is placed there no more is not told"
        assert {state["machineID"] for state in states} == {machines[1]}
        (shown,) = (await ask(api, "GET", "/fleet/v1/state?unitName=u007.service"))["states"]
        assert (shown["name"], shown["machineID"]) == ("u007.service", machines[1])
        assert (await ask(api, "GET", f"/fleet/v1/state?unitName=u007.service&machineID={machines[0]}"))["states"] == []
        assert (await ask(api, "GET", "/fleetd/v1/explain/u007.service"))["machines"] == [machines[1]]
        await server.stop()
        await client.close()


async def test_the_journal_hook_is_streamed(tmp_path: Path) -> None:
    async with served(tmp_path) as (api, registry, _):
        await registry.create_unit("x.service", TEXT, "inactive")
        lines = await asyncio.to_thread(lambda: list(api.journal("x.service", 3, False)))
        assert [line["text"] for line in lines] == ["x.service 0", "x.service 1", "x.service 2"]
        assert (await refused(api, "GET", "/fleetd/v1/journal/y.service"))[0] == 404


def test_an_absent_fleetd_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match=r"fleetd does not answer on unix://.*Is it running here"):
        ApiClient(f"unix://{tmp_path}/none.sock").machines()
    with pytest.raises(ClientError, match="neither unix:///PATH nor http://HOST:PORT"):
        ApiClient("ftp://x")
