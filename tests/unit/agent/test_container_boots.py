"""What becomes of containers' records when their machine boots again."""

from __future__ import annotations

import asyncio
import contextlib
import io
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from agent.containers.container import LOST_CODE, Containers
from agent.containers.life import Conflict
from agent.containers.records import Record, Records
from agent.containers.rootfs import TRASH
from agent.docker_steps import UnitContainer
from agent.units.docker_options import ContainerOptions
from tests.lab import busybox

BOOT, BEFORE = "this", "before"


def saved(data: Path, letters: str, at: float, **more: object) -> Record:
    """Leave a container's record behind, as an earlier boot did."""
    given = {"name": "", "remove": False, "unit": "", "state": "running", "boot": BEFORE, **more}
    options = replace(ContainerOptions("busybox"), name=str(given["name"]), remove=bool(given["remove"]))
    record = Record(
        id=letters * 16,
        name=str(given["name"]) or f"made_up_{letters}",
        image="sha256:0",
        options=options,
        args=("sleep", "1"),
        env=(),
        user="",
        directory="",
        stop_signal="TERM",
        log_dir=str(data / "log"),
        created=at,
        unit=str(given["unit"]),
        state=str(given["state"]),
        boot=str(given["boot"]),
        started=at,
    )
    Records(data / "containers").save(record)
    return record


def test_what_a_boot_finds_of_the_last_one(tmp_path: Path) -> None:
    data = tmp_path / "data"
    saved(data, "aaaa", 1, name="web", unit="web.service", remove=True)
    saved(data, "bbbb", 2, name="db", unit="db.service")
    saved(data, "cccc", 3, unit="hello.service", state="exited")
    saved(data, "dddd", 4, unit="hello.service")
    saved(data, "eeee", 5, state="exited")
    saved(data, "ffff", 6, state="exited", remove=True)

    async def boot() -> dict[str, Record]:
        containers = Containers(data, tmp_path / "run", BOOT)
        await containers.adopt()
        return {record.id[:4]: record for record in containers.list()}

    found = asyncio.run(boot())
    assert sorted(found) == ["bbbb", "dddd", "eeee"], "--rm is obeyed, and of unnamed ones the youngest stays"
    assert {record.state for record in found.values()} == {"exited"}
    assert (found["bbbb"].code, found["dddd"].code, found["eeee"].code) == (LOST_CODE, LOST_CODE, 0)
    assert sorted(path.name[:4] for path in (data / "containers").glob("[!.]*")) == ["bbbb", "dddd", "eeee"]


def test_records_that_can_not_be_read_are_named_and_keep_nobody_from_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    ended = saved(data, "aaaa", 1, boot=BOOT)
    (tmp_path / "run" / "c" / ended.id[:24]).mkdir(parents=True)
    (tmp_path / "run" / "c" / ended.id[:24] / "exit.json").write_text("{")
    texts = {"newer": '{"version": 99}', "odd": '{"version": 1}', "list": "[]", "cut": '{"version": 1, "na'}
    for name, text in texts.items():
        (data / "containers" / name).mkdir()
        (data / "containers" / name / "record.json").write_text(text)

    async def boot() -> list[tuple[str, str, int]]:
        containers = Containers(data, tmp_path / "run", BOOT)
        await containers.adopt()
        return [(record.id[:4], record.state, record.code) for record in containers.list()]

    assert asyncio.run(boot()) == [("aaaa", "exited", LOST_CODE)]
    for name in ("newer", "odd", "list"):
        path = data / "containers" / name / "record.json"
        assert path.read_text() == texts[name], "another program may understand it"
        assert any(str(path) in line for line in caplog.messages)
    assert not (data / "containers" / "cut").exists()


def test_a_units_container_that_was_made_and_never_noted_gives_its_name_back(tmp_path: Path) -> None:
    async def make() -> tuple[str, str, list[str]]:
        containers = Containers(tmp_path / "data", tmp_path / "run", BOOT)
        containers.images.import_tar(io.BytesIO(busybox()), "busybox")
        options = replace(ContainerOptions("busybox"), name="web", command=("true",))
        wanted = UnitContainer("web.service", options, tmp_path / "log", "")
        first = await containers.create(wanted)  # here fleetd is killed: the unit's record does not know of it
        later = Containers(tmp_path / "data", tmp_path / "run", BOOT)
        await later.adopt()
        second = await later.create(wanted)
        with pytest.raises(Conflict):
            await later.create(replace(wanted, unit="other.service"))
        return first, second, [record.id for record in later.list()]

    first, second, left = asyncio.run(make())
    assert second != first and left == [second]


def test_who_removes_a_container_does_not_wait_for_its_volumes_to_be_deleted(tmp_path: Path) -> None:
    record = saved(tmp_path / "data", "aaaa", 1, boot=BOOT, state="exited")
    volumes = tmp_path / "data" / "volumes"
    volume, left = (place / f"{record.id[:32]}-0" for place in (volumes, volumes / TRASH))
    for path in (volume, volumes / "named"):
        path.mkdir(parents=True)
        (path / "file").touch()

    async def boot() -> None:
        containers = Containers(tmp_path / "data", tmp_path / "run", BOOT)
        await containers.adopt()
        await containers.remove(record.id, force=False, volumes=True)
        assert not volume.exists() and (left / "file").exists()
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(containers.run())
            while left.exists():
                await asyncio.sleep(0.01)
            running.cancel()

    asyncio.run(boot())
    assert (volumes / "named" / "file").exists()


def test_a_monitor_that_does_not_answer_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.monitor.link.ANSWER_TIMEOUT_S", 0.1)
    monkeypatch.setattr("agent.monitor.link.RETRY_S", 0.1)
    record = saved(tmp_path / "data", "aaaa", 1, boot=BOOT)
    run = tmp_path / "run" / "c" / record.id[:24]
    run.mkdir(parents=True)

    async def boot() -> tuple[str, str, int]:
        with socket.socket(socket.AF_UNIX) as silent:
            with contextlib.chdir(run):  # its whole path may be longer than a socket's address
                silent.bind("control")
            silent.listen()
            containers = Containers(tmp_path / "data", tmp_path / "run", BOOT)
            await containers.adopt()
            meanwhile = containers.get(record.id).state
        async with asyncio.timeout(60):
            code = await containers.wait(record.id)
        return meanwhile, containers.get(record.id).state, code

    assert asyncio.run(boot()) == ("running", "exited", LOST_CODE)
