"""A container's start that a killed fleetd left half done, at each point where that matters. Real runc and monitors."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from agent import identity
from agent.containers.container import Containers
from agent.containers.launch import Launcher, Places
from agent.containers.records import Record, Records
from agent.docker_steps import UnitContainer
from agent.monitor.link import Link
from agent.network.addresses import AddressError, Addresses
from agent.network.bridge import Bridge
from agent.network.published import PortError
from agent.units.docker_options import ContainerOptions, PublishedPort
from tests.conformance.containers import busybox

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(
        os.geteuid() != 0 or not (shutil.which("runc") and Path("/bin/busybox").exists()),
        reason="needs root, runc and busybox",
    ),
]
END_TIMEOUT_S = 60.0


def launcher(place: Path) -> Launcher:
    """What starts the containers of the fleetd whose things are in `place`."""
    data, run = place / "data", place / "run"
    return Launcher(Places(data / "containers", data / "volumes", run / "c", run / "runtime"), Bridge())


async def nothing(record: Record, link: Link) -> None:
    """Be killed before the record could be saved."""


async def cut_off(place: Path, told: Callable[[Record, Link], Awaitable[None]]) -> str:
    """Go as far as the runtime's `create`, then do what `told` says and no more; answer the container."""
    containers = Containers(place / "data", place / "run", identity.boot())
    containers.images.import_tar(io.BytesIO(busybox()), "busybox")
    options = replace(ContainerOptions("busybox"), network="none", command=("sh", "-c", "exit 7"))
    container = await containers.create(UnitContainer("", options, Path(), ""))
    record = containers.get(container)
    record, link = await launcher(place).launch(record, containers.images.resolve("busybox"))
    await told(record, link)
    await link.close()
    return container


async def test_what_was_made_and_not_noted_is_cleared_away_and_can_be_started(tmp_path: Path) -> None:
    container = await cut_off(tmp_path, nothing)
    later = Containers(tmp_path / "data", tmp_path / "run", identity.boot())
    await later.adopt()
    assert later.get(container).state == "created"
    assert not (tmp_path / "run" / "runtime" / container).exists()
    await later.start(container)
    async with asyncio.timeout(END_TIMEOUT_S):
        assert await later.wait(container) == 7
    await later.remove(container, force=True, volumes=True)


@pytest.mark.parametrize("ordered", [False, True])
async def test_what_was_noted_as_running_runs(tmp_path: Path, ordered: bool) -> None:
    async def note(record: Record, link: Link) -> None:
        Records(tmp_path / "data" / "containers").save(replace(record, state="running", started=1.0))
        if ordered:
            await link.start()

    container = await cut_off(tmp_path, note)
    later = Containers(tmp_path / "data", tmp_path / "run", identity.boot())
    await later.adopt()
    async with asyncio.timeout(END_TIMEOUT_S):
        assert await later.wait(container) == 7
    await later.remove(container, force=True, volumes=True)


async def test_the_address_and_ports_of_its_last_run_stay_those_of_who_has_them_by_now(tmp_path: Path) -> None:
    await cut_off(tmp_path, nothing)
    ports = (PublishedPort(80, "tcp", host_port=8080),)
    found = next(Records(tmp_path / "data" / "containers").all())
    restarted = replace(found, state="exited", address="172.17.0.5", ports=ports)
    later = launcher(tmp_path)
    later.network.addresses = Addresses(IPv4Network("172.17.0.0/16"))
    later.network.addresses.take("172.17.0.5")  # another's, which was adopted
    later.network.ports.keep(ports)
    assert await later.undo_cut_off(restarted)
    with pytest.raises(AddressError):
        later.network.addresses.take("172.17.0.5")
    with pytest.raises(PortError):
        later.network.ports.take(ports)
