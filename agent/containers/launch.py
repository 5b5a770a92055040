"""Joins a container's root, network and monitor: the only place where the three meet. It keeps no records."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from agent import cgroups
from agent.containers import oci_spec, rootfs, security
from agent.containers.records import Record
from agent.images.archive import ArchiveError, inside
from agent.images.store import Image
from agent.isolation import Isolation
from agent.monitor.link import (
    Bundle,
    Created,
    Exited,
    Link,
    MonitorError,
    MonitorLost,
    MonitorSpec,
    connect,
    read_exit,
    spawn,
)
from agent.network import bridge, names
from agent.network.bridge import Bridge
from agent.units.docker_line import PublishedPort

RUNTIMES = ("runc", "crun")
DISMISS_TIMEOUT_S = 5.0
CREATE_TIMEOUT_S = 10.0
VOLUME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*\Z")

log = logging.getLogger(__name__)


class LaunchError(Exception):
    """A container could not be started. `code` is docker's exit code for it: 125, 126 or 127."""

    def __init__(self, reason: str, code: int = 125) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True)
class Places:
    """Where a machine's containers have their things."""

    records: Path
    volumes: Path
    run: Path
    runtime_root: Path


class Launcher:
    """Starts and clears away."""

    def __init__(self, places: Places, network: Bridge) -> None:
        self.places = places
        self.network = network
        layout = cgroups.detect()
        self._top = cgroups.Cgroup(oci_spec.CGROUP_PARENT, layout=layout, root="")
        self._swap = cgroups.counts_swap(layout)
        self._every = security.own_capabilities()

    async def launch(self, record: Record, image: Image) -> tuple[Record, Link]:
        """Have a container that waits for `Link.start`; answer its record with address, ports and pid."""
        place = self.places.records / record.id
        record = await self._addressed(record, image)
        link: Link | None = None
        try:
            await asyncio.to_thread(self._prepare, record, image, place)
            run = self.places.run / record.id[:24]
            shutil.rmtree(run, ignore_errors=True)
            spec = MonitorSpec(
                record.id[:24],
                run,
                Path(record.log_dir),
                bundle=Bundle(place, record.id, _runtime(), self.places.runtime_root),
                tty=record.options.tty,
                stdin_open=record.options.interactive,
                isolation=Isolation.read(record.options.labels),
            )
            link = await spawn(spec)
            pid = await _created(link)
            if record.address:
                await asyncio.to_thread(self.network.join, pid, record.id, record.address, record.ports)
            elif record.options.network == "none":
                await asyncio.to_thread(bridge.loopback, pid)
        except BaseException:
            await self.undo(record, link)
            raise
        return replace(record, pid=pid), link

    async def undo(self, record: Record, link: Link | None) -> None:
        """Give back what a container had whose start failed, and let its monitor go."""
        try:
            await self.clear(record)
        finally:
            if link is not None:
                await _dismiss(link)

    async def undo_cut_off(self, record: Record) -> bool:
        """Give back what a start left that was cut off before its record could say that it runs; False for nothing."""
        link: Link | None = None
        try:
            link = await connect(self.places.run / record.id[:24])
            async with asyncio.timeout(CREATE_TIMEOUT_S):
                await _created(link)  # not while the runtime makes it
        except MonitorLost:
            if not (self.places.runtime_root / record.id).exists():
                return False
        except (LaunchError, TimeoutError) as error:
            log.warning("container %s: %s", record.name, error)
        await self.undo(record, link)
        return True

    def check(self, record: Record) -> None:
        """Raise CgroupError when its `--cgroup-parent` can name no control group."""
        self._top.at(oci_spec.cgroup(record))

    async def clear(self, record: Record) -> None:
        """Give back what a container that does not run any more had: runtime, network, mount."""
        if not await asyncio.to_thread(self._forget_ended, record):
            process = await asyncio.create_subprocess_exec(
                *(_runtime(), "--root", str(self.places.runtime_root), "delete", "--force", record.id),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
            await process.wait()
        if record.address:
            await asyncio.to_thread(self.network.leave, record.address, record.ports)
        await asyncio.to_thread(rootfs.unmount, self.places.records / record.id)

    def _forget_ended(self, record: Record) -> bool:
        """What the runtime's `delete` does for a container in which no process is left, without starting a program;
        False when that is not sure."""
        group = self._top.at(oci_spec.cgroup(record))
        try:
            if not group.exists() or group.procs():
                return False
            group.remove()
            shutil.rmtree(self.places.runtime_root / record.id)
        except (OSError, cgroups.CgroupError):
            return False
        return True

    def oom_killed(self, record: Record) -> bool:
        """Whether the kernel killed something in an ended container for want of memory; ask before `clear`."""
        return self._top.at(oci_spec.cgroup(record)).oom_kills() > 0

    def clear_top(self) -> None:
        """Remove the control group that all containers share, where none is left in it. None may be starting."""
        for path in self._top.paths():
            with contextlib.suppress(OSError):
                path.rmdir()

    async def _addressed(self, record: Record, image: Image) -> Record:
        options = record.options
        if options.network in ("host", "none"):
            return replace(record, address="", ports=())
        if options.network not in ("", "default", "bridge"):
            raise LaunchError(f"network {options.network} not found")
        addresses = await asyncio.to_thread(self.network.prepare)
        wanted = list(options.ports)
        if options.publish_all:
            given = {(port.container_port, port.protocol) for port in wanted}
            for text in record.exposed:
                number, _, kind = text.partition("/")
                if (int(number), kind or "tcp") not in given:
                    wanted.append(PublishedPort(int(number), kind or "tcp"))
        ports = self.network.ports.take(wanted)
        try:
            return replace(record, address=addresses.take(options.ip), ports=ports)
        except BaseException:
            self.network.ports.free(ports)
            raise

    def _prepare(self, record: Record, image: Image, place: Path) -> None:
        root = rootfs.mount(place, image.layers)
        options = record.options
        hostname = options.hostname or record.id[:12]
        (place / "hosts").write_text(names.hosts(record.address, hostname, options.add_hosts))
        (place / "hostname").write_text(f"{hostname}\n")
        own = ""
        with contextlib.suppress(OSError):
            own = Path("/etc/resolv.conf").read_text()
        text = names.resolv_conf(own, options.dns, options.dns_search, options.dns_options)
        (place / "resolv.conf").write_text(text)
        if record.directory:
            inside(root, f"{record.directory}/.").mkdir(parents=True, exist_ok=True)
        user = user_of(root, record.user)
        spec = oci_spec.build(record, root, place, user, self._binds(record), swap=self._swap, every=self._every)
        (place / "config.json").write_text(json.dumps(spec))

    def _binds(self, record: Record) -> list[tuple[str, str, bool]]:
        found = []
        for number, item in enumerate(record.options.mounts):
            if item.kind == "tmpfs":
                continue
            if item.source.startswith("/"):
                source = Path(item.source)
                if not source.exists():
                    if not item.make:
                        raise LaunchError(f"bind source path does not exist: {source}")
                    source.mkdir(parents=True)
            else:
                name = item.source or f"{record.id[:32]}-{number}"
                if not VOLUME.match(name):
                    raise LaunchError(f'"{name}" includes invalid characters for a local volume name')
                source = self.places.volumes / name
                source.mkdir(mode=0o755, parents=True, exist_ok=True)
            found.append((str(source), item.target, item.read_only))
        return found


def user_of(root: Path, text: str) -> oci_spec.User:
    """`name`, `uid`, with `:group` or not, as the container's own /etc/passwd and /etc/group have it."""
    user, _, group = text.partition(":")
    uid, gid, name, known = (int(user) if user.isdigit() else 0), 0, user, not user or user.isdigit()
    for fields in _table(root, "etc/passwd", 7):
        if fields[0] == user or (not known and fields[0] == user) or (fields[2] == str(uid) and known):
            uid, gid, name, known = int(fields[2]), int(fields[3]), fields[0], True
            break
    if not known:
        raise LaunchError(f"unable to find user {user}: no matching entries in passwd file")
    groups = list(_table(root, "etc/group", 4))
    more = tuple(int(fields[2]) for fields in groups if name and name in fields[3].split(","))
    if group:
        gid = int(group) if group.isdigit() else next((int(item[2]) for item in groups if item[0] == group), -1)
        if gid < 0:
            raise LaunchError(f"unable to find group {group}: no matching entries in group file")
        more = ()
    return oci_spec.User(uid, gid, more)


def _table(root: Path, name: str, width: int) -> list[list[str]]:
    try:
        path = inside(root, name)
        if path.is_symlink() or not path.is_file():
            return []
        rows = [line.split(":") for line in path.read_text(errors="replace").splitlines()]
    except (OSError, ArchiveError):
        return []
    return [row for row in rows if len(row) >= width and row[2].isdigit()]


async def _dismiss(link: Link) -> None:
    """Let the monitor of a container that was not started go; the runtime has deleted the container by now."""
    try:
        async with asyncio.timeout(DISMISS_TIMEOUT_S):
            with contextlib.suppress(MonitorError):
                if read_exit(link.run_dir) is None:
                    await link.wait()
                await link.forget()
    except TimeoutError:
        log.warning("the monitor of %s does not see that its container is gone", link.run_dir)
    finally:
        await link.close()


async def _created(link: Link) -> int:
    async for event in link.events():
        if isinstance(event, Created):
            return event.pid
        if isinstance(event, Exited):
            code = event.code if event.code in (126, 127) else 125
            raise LaunchError(
                event.reason.removeprefix(f"{link.run_dir.name}: ") or "the runtime could not create the container",
                code,
            )
    raise LaunchError("the container's monitor went away while it was made")


def _runtime() -> str:
    for name in RUNTIMES:
        if (path := shutil.which(name, path=os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"))) is not None:
            return path
    raise LaunchError(f"none of the container runtimes {', '.join(RUNTIMES)} is installed")
