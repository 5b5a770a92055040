"""fleet-monitor with a real container runtime."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent.monitor import logfile
from agent.monitor.link import Bundle, Created, Exited, Link, MonitorSpec, Started, connect, spawn

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(
        os.geteuid() != 0 or not (shutil.which("runc") and Path("/bin/busybox").exists()),
        reason="needs root, runc and busybox",
    ),
]


@pytest.fixture
async def held(tmp_path: Path) -> AsyncIterator[Callable[..., MonitorSpec]]:
    """Makes specs of containers with busybox alone, and removes them afterwards."""
    made: list[MonitorSpec] = []
    binaries = tmp_path / "rootfs" / "bin"
    binaries.mkdir(parents=True)
    shutil.copy("/bin/busybox", binaries)
    for name in ("sh", "stty"):
        (binaries / name).symlink_to("busybox")

    def make(*args: str, tty: bool = False, stdin_open: bool = False) -> MonitorSpec:
        name = f"test-{os.getpid()}-{len(made)}"
        bundle = tmp_path / name
        bundle.mkdir()
        subprocess.run(["runc", "spec"], cwd=bundle, check=True)
        config = json.loads((bundle / "config.json").read_text())
        config["process"]["args"] = list(args)
        config["process"]["terminal"] = tty
        config["root"] = {"path": str(tmp_path / "rootfs"), "readonly": True}
        config["mounts"] = [mount for mount in config["mounts"] if mount["type"] != "cgroup"]
        config["linux"]["cgroupsPath"] = f"/{name}"
        (bundle / "config.json").write_text(json.dumps(config))
        oci = Bundle(bundle, name, runtime_root=tmp_path / "runc", gate=True)
        spec = MonitorSpec(
            name, tmp_path / f"run{len(made)}", tmp_path / f"log{len(made)}", bundle=oci, tty=tty, stdin_open=stdin_open
        )
        made.append(spec)
        return spec

    yield make
    for spec in made:
        assert spec.bundle is not None
        delete = ["runc", "--root", str(spec.bundle.runtime_root), "delete", "--force", spec.bundle.container_id]
        subprocess.run(delete, capture_output=True, check=False)
        link = await connect(spec.run_dir)
        await link.wait()
        await link.forget()


async def until_created(link: Link) -> int:
    async for event in link.events():
        assert isinstance(event, Created), event
        return event.pid
    raise AssertionError("the monitor went away")


async def test_created_started_and_ended(held: Callable[..., MonitorSpec]) -> None:
    spec = held("/bin/sh", "-c", "echo hello; echo oops >&2; exit 9")
    link = await spawn(spec)
    pid = await until_created(link)
    assert list(logfile.read(spec.log_dir)) == []
    again = await connect(spec.run_dir)
    await again.start()
    events = [event async for event in again.events()]
    assert [type(event) for event in events] == [Created, Started, Exited]
    assert isinstance(events[1], Started)
    assert events[1].pid == pid
    assert isinstance(events[2], Exited)
    assert (events[2].code, events[2].reason) == (9, "")
    assert [(entry.stream, entry.text) for entry in logfile.read(spec.log_dir)] == [
        ("stdout", b"hello"),
        ("stderr", b"oops"),
    ]
    await again.close()
    await link.close()


@pytest.mark.parametrize(("gate", "called"), [(True, ["create"]), (False, ["create", "start"])])
async def test_a_start_calls_a_runtime_only_if_it_has_to(
    held: Callable[..., MonitorSpec], tmp_path: Path, gate: bool, called: list[str]
) -> None:
    spec = held("/bin/sh", "-c", "read line; exit 3", stdin_open=True)
    assert spec.bundle is not None
    runtime, calls = tmp_path / "runtime", tmp_path / "calls"
    runtime.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {calls}\nexec runc "$@"\n')
    runtime.chmod(0o755)
    link = await spawn(replace(spec, bundle=replace(spec.bundle, runtime=str(runtime), gate=gate)))
    await until_created(link)
    attached = await link.attach()
    await link.start()
    async for event in link.events():
        if isinstance(event, Started):
            break
    state = ("runc", "--root", str(spec.bundle.runtime_root), "state", spec.bundle.container_id)
    found = await asyncio.to_thread(subprocess.run, state, capture_output=True, check=True)
    assert json.loads(found.stdout)["status"] == "running"
    await attached.write(b"go\n")
    assert (await link.wait()).code == 3
    assert [word for word in calls.read_text().split() if word in ("create", "start")] == called
    await attached.close()
    await link.close()


@pytest.mark.parametrize("gate", [True, False])
async def test_it_has_started_when_its_program_is_loaded(
    held: Callable[..., MonitorSpec], tmp_path: Path, gate: bool
) -> None:
    spec = held("/bin/sh", "-c", "trap 'exit 9' TERM; echo ready; while true; do read line; done", stdin_open=True)
    assert spec.bundle is not None
    config = json.loads((spec.bundle.path / "config.json").read_text())
    slow = {"path": "/bin/sh", "args": ["sh", "-c", "/bin/busybox sleep 1"]}  # what init does past its gate
    config["hooks"] = {"startContainer": [slow]}
    (spec.bundle.path / "config.json").write_text(json.dumps(config))
    link = await spawn(replace(spec, bundle=replace(spec.bundle, gate=gate)))
    pid = await until_created(link)
    await link.start()
    async for event in link.events():
        assert isinstance(event, Started)
        break
    assert Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"/bin/sh\0-c\0trap")
    while list(logfile.read(spec.log_dir)) == []:
        await asyncio.sleep(0.02)
    await link.signal(signal.SIGTERM)
    assert (await link.wait()).code == 9
    await link.close()


async def test_a_container_killed_before_its_start_has_ended_and_is_not_waited_for(
    held: Callable[..., MonitorSpec],
) -> None:
    link = await spawn(held("/bin/sh", "-c", "exit 3"))
    pid = await until_created(link)
    os.kill(pid, signal.SIGSTOP)
    await link.start()
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        end = await link.wait()
    assert (end.code, end.signal) == (None, signal.SIGKILL)
    await link.close()


async def test_a_program_that_is_not_there(held: Callable[..., MonitorSpec]) -> None:
    spec = held("no-such-program")
    link = await spawn(spec)
    events = [event async for event in link.events()]
    assert isinstance(events[-1], Exited)
    assert events[-1].code == 127
    assert "no-such-program" in events[-1].reason
    assert list(logfile.read(spec.log_dir)) == []
    await link.close()


async def test_terminal_of_a_container(held: Callable[..., MonitorSpec]) -> None:
    spec = held("/bin/sh", "-c", "read a; echo got $a; stty size", tty=True, stdin_open=True)
    link = await spawn(spec)
    await until_created(link)
    async with await link.attach() as attached:
        await link.resize(30, 90)
        await link.start()
        await attached.write(b"word\n")
        text = b""
        async with asyncio.timeout(60):
            while (piece := await attached.read()) is not None:
                text += piece[1]
    assert text == b"word\r\ngot word\r\n30 90\r\n"
    assert (await link.wait()).code == 0
    await link.close()
