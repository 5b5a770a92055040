"""fleetctl as a user runs it: a process, against the real API on a real store, with machines that do as told."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.unit.fleetd.test_api import served

HELLO = "[Unit]\nDescription=Hello\n[Service]\nExecStart=/bin/sleep 9\n"


@dataclass
class Ran:
    code: int
    out: str
    err: str
    seconds: float


@dataclass
class Shell:
    """Runs fleetctl in a directory."""

    directory: Path

    async def run(self, *words: str) -> Ran:
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cli.fleetctl.app", "--endpoint", f"unix://{self.directory}/fleet.sock", *words),
            cwd=self.directory,
            env={"PYTHONPATH": str(Path(__file__).parents[3]), "PATH": "/usr/bin:/bin"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        return Ran(process.returncode or 0, out.decode(), err.decode(), time.monotonic() - began)

    async def ok(self, *words: str) -> str:
        ran = await self.run(*words)
        assert (ran.code, ran.err) == (0, ""), ran
        return ran.out

    def file(self, name: str, text: str = HELLO) -> None:
        (self.directory / name).write_text(text)


@asynccontextmanager
async def shell(directory: Path) -> AsyncIterator[Shell]:
    async with served(directory) as (_, registry, _machines):
        async with asyncio.timeout(60):
            while not await registry.engine_leader() or len(await registry.presences()) < 2:
                await asyncio.sleep(0.02)
        yield Shell(directory)


async def test_a_unit_from_submit_to_destroy(tmp_path: Path) -> None:
    async with shell(tmp_path) as fleetctl:
        fleetctl.file("hello.service")
        assert await fleetctl.ok("submit", "hello.service") == "Unit hello.service inactive\n"
        assert await fleetctl.ok("cat", "hello") == HELLO
        listed = (await fleetctl.ok("list-unit-files")).splitlines()
        assert [line.split() for line in listed] == [
            ["UNIT", "HASH", "DSTATE", "STATE", "TARGET"],
            ["hello.service", listed[1].split()[1], "inactive", "inactive", "-"],
        ]
        assert (await fleetctl.ok("load", "hello")).startswith("Unit hello.service loaded on ")
        started = await fleetctl.ok("start", "hello.service")
        target = started.split(" on ")[1].strip()
        assert target in ("aaaaaaaa.../10.0.0.1", "bbbbbbbb.../10.0.0.1")
        assert started == f"Unit hello.service launched on {target}\n"
        units = await fleetctl.ok("list-units", "--no-legend")
        assert units.split() == ["hello.service", target, "active", "running"]
        assert await fleetctl.ok("list-units", "--fields", "unit,sub", "--no-legend") == "hello.service\trunning\n"
        status = await fleetctl.ok("status", "hello")
        assert "Active: active (running)" in status
        assert (await fleetctl.ok("journal", "--lines", "2", "--output", "cat", "hello")).splitlines() == [
            "hello.service 0",
            "hello.service 1",
        ]
        assert await fleetctl.ok("stop", "hello") == f"Unit hello.service loaded on {target}\n"
        assert (await fleetctl.run("status", "hello")).code == 3
        assert await fleetctl.ok("unload", "hello") == "Unit hello.service inactive\n"
        assert await fleetctl.ok("destroy", "hello") == "Destroyed hello.service\n"
        assert await fleetctl.ok("list-unit-files", "--no-legend") == ""


async def test_machines(tmp_path: Path) -> None:
    async with shell(tmp_path) as fleetctl:
        lines = [line.split() for line in (await fleetctl.ok("list-machines")).splitlines()]
        assert lines == [
            ["MACHINE", "IP", "METADATA"],
            ["aaaaaaaa...", "10.0.0.1", "disk=ssd"],
            ["bbbbbbbb...", "10.0.0.1", "-"],
        ]
        assert json.loads(await fleetctl.ok("list-machines", "--json"))[0]["id"] == "a" * 32
        assert "a" * 32 in await fleetctl.ok("list-machines", "--full")


async def test_templates_and_globs(tmp_path: Path) -> None:
    async with shell(tmp_path) as fleetctl:
        fleetctl.file("web@.service")
        started = (await fleetctl.ok("start", "web@1", "web@2.service")).splitlines()
        assert sorted(line.split()[1] for line in started) == ["web@1.service", "web@2.service"]
        (tmp_path / "web@.service").unlink()
        assert (await fleetctl.run("start", "web@3")).code == 1
        fleetctl.file("web@.service")
        await fleetctl.ok("submit", "web@.service")
        refused = await fleetctl.run("start", "web@.service")
        assert (refused.code, "web@.service is a template: name an instance of it" in refused.err) == (1, True), refused
        (tmp_path / "web@.service").unlink()
        assert len((await fleetctl.ok("stop", "web@*")).splitlines()) == 2
        idle = await fleetctl.run("stop", "web@.service")
        assert (idle.code, idle.err) == (1, "Unable to stop unit web@.service in state inactive.\n")
        again = (await fleetctl.ok("start", "web@*")).splitlines()
        assert sorted(line.split()[1] for line in again) == ["web@1.service", "web@2.service"]
        await fleetctl.ok("destroy", "web@.service")
        assert json.loads(await fleetctl.ok("destroy", "--json", "web@*")) == [
            {"unit": "web@1.service", "state": "destroyed"},
            {"unit": "web@2.service", "state": "destroyed"},
        ]


async def test_why_a_unit_does_not_run(tmp_path: Path) -> None:
    async with shell(tmp_path) as fleetctl:
        fleetctl.file("bad.service")
        fleetctl.file("tape.service", HELLO + "[X-Fleet]\nMachineMetadata=disk=tape\n")
        bad = await fleetctl.run("start", "bad")
        assert bad.code == 1
        assert "failed (failed), result exit-code, exit status 7. The main process exited with status 7." in bad.err
        tape = await fleetctl.run("start", "--block-attempts", "1", "tape")
        assert tape.code == 1
        assert "is not launched after 1 attempts" in tape.err
        tape = await fleetctl.run("start", "tape")
        assert (tape.code, tape.out) == (1, "")
        assert "tape.service is not placed: None of 2 machines will do: 2 without metadata disk=tape." in tape.err
        assert (await fleetctl.run("start", "--no-block", "tape")).out == "Triggered unit tape.service start\n"


async def test_a_oneshot_that_ended_well_has_started(tmp_path: Path) -> None:
    async with shell(tmp_path) as fleetctl:
        fleetctl.file("once.service", "[Service]\nType=oneshot\nExecStart=/bin/true\n")
        assert (await fleetctl.ok("start", "once")).startswith("Unit once.service launched on ")


async def test_mistakes_are_told_with_their_place(tmp_path: Path) -> None:
    async with shell(tmp_path) as fleetctl:
        fleetctl.file("wrong.service", "[Service]\nExecStart=/bin/true\nTimeoutStopSec=abc\n")
        wrong = await fleetctl.run("submit", "wrong.service")
        assert wrong.code == 1
        assert wrong.err.startswith("wrong.service:3:16: ")
        for words, said in (
            (("start", "nope"), "nope.service is neither a unit of the cluster nor a file here."),
            (("stop", "nope"), "No such unit in the cluster: nope.service."),
            (("destroy", "n*"), "No unit of the cluster matches 'n*'."),
            (("cat", "nope"), "Unit nope.service not found."),
            (("list-units", "--fields", "x"), "There is no field 'x'; use some of unit,machine,load,active,sub,hash."),
        ):
            ran = await fleetctl.run(*words)
            assert (ran.code, ran.err.strip()) == (1, said)
        fleetctl.file("hello.service")
        await fleetctl.ok("submit", "hello.service")
        fleetctl.file("hello.service", HELLO + "RestartSec=1\n")
        differs = await fleetctl.run("submit", "hello.service")
        assert differs.code == 0
        assert "differs from the file hello.service; use --replace" in differs.err
        await fleetctl.ok("submit", "--replace", "hello.service")
        assert (await fleetctl.ok("cat", "hello")).endswith("RestartSec=1\n")


async def test_help_has_examples_and_no_daemon_is_a_sentence(tmp_path: Path) -> None:
    fleetctl = Shell(tmp_path)
    assert "Example:  fleetctl start" in await fleetctl.ok("start", "--help")
    assert "list-unit-files" in await fleetctl.ok("--help")
    ran = await fleetctl.run("list-units")
    assert ran.code == 1
    assert "Is it running here?" in ran.err
