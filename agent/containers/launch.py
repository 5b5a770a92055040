"""Joins a container's root, network and monitor: the only place where the three meet. It keeps no records."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from pyroute2.netlink.exceptions import NetlinkError

from agent import cgroups
from agent.containers import oci_spec, rootfs, runtime, security
from agent.containers.life import logged
from agent.containers.records import Record
from agent.containers.runtime import Runtime
from agent.hierarchies import detect
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
from agent.network.nft import NftError
from agent.network.pool import Pool, Ready
from agent.units.docker_options import PublishedPort

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
        self.pool = Pool(network)
        layout = detect()
        self._top = cgroups.Cgroup(oci_spec.CGROUP_PARENT, layout=layout, root="")
        self._swap = cgroups.counts_swap(layout)
        self._every = security.own_capabilities()
        self._runtime: Runtime | None = None

    async def launch(self, record: Record, image: Image) -> tuple[Record, Link]:
        """Have a container that waits for `Link.start`; answer its record with address, ports and pid."""
        place = self.places.records / record.id
        record, ready = await self._addressed(record)
        link: Link | None = None
        try:
            await asyncio.to_thread(self._prepare, record, image, place, ready.path if ready else "")
            run = self.places.run / record.id[:24]
            shutil.rmtree(run, ignore_errors=True)
            tool = await self.find_runtime()
            spec = MonitorSpec(
                record.id[:24],
                run,
                Path(record.log_dir),
                bundle=Bundle(place, record.id, tool.path, self.places.runtime_root, gate=tool.is_runc),
                tty=record.options.tty,
                stdin_open=record.options.interactive,
                isolation=Isolation.read(record.options.labels),
            )
            link = await spawn(spec)
            pid = await _created(link)
            if record.ports:
                await asyncio.to_thread(self.network.publish, record.address, record.ports)
            elif record.options.network == "none":
                await asyncio.to_thread(bridge.loopback, pid)
        except BaseException:
            with logged(record, "can't clear away"):  # which may not hide why it did not start
                await self.undo(record, link)
            raise
        finally:
            if ready is not None:
                ready.close()
        return replace(record, pid=pid), link

    async def find_runtime(self) -> Runtime:
        """The runtime, asked once what it is. Raises NoRuntime."""
        self._runtime = await asyncio.to_thread(runtime.find, self._runtime)
        return self._runtime

    async def readdress(self, record: Record) -> None:
        """Note the address and the ports of one that runs since an earlier process, and send its ports on again."""
        addresses = await asyncio.to_thread(self.network.prepare)
        addresses.take(record.address)
        self.network.ports.keep(record.ports)
        await asyncio.to_thread(self.network.publish, record.address, record.ports)

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
        # The record's address and ports are its last run's: others may have them. What this start took is on no disk.
        await self.undo(replace(record, address="", ports=()), link)
        return True

    def check(self, record: Record) -> None:
        """Raise CgroupError when its `--cgroup-parent` can name no control group."""
        self._top.at(oci_spec.cgroup(record))

    async def clear(self, record: Record) -> None:
        """Give back what a container that does not run any more had: runtime, network, mount; each though another
        can't be."""
        async with contextlib.AsyncExitStack() as rest:
            rest.push_async_callback(asyncio.to_thread, rootfs.unmount, self.places.records / record.id)
            if record.address:
                rest.push_async_callback(asyncio.to_thread, self.network.leave, record.address, record.ports)
            if not await asyncio.to_thread(self._forget_ended, record):
                process = await asyncio.create_subprocess_exec(
                    *(runtime.path(), "--root", str(self.places.runtime_root), "delete", "--force", record.id),
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.DEVNULL,
                )
                await process.wait()

    async def drop_old_rules(self) -> None:
        """Once all that runs is adopted: drop packet rules that nobody needs any more."""
        try:
            await asyncio.to_thread(self.network.drop_old_rules)
        except (NftError, NetlinkError, OSError) as error:
            log.warning("ports that an earlier fleetd published may still be sent on: %s", error)

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

    def discard_volumes(self, record: Record) -> None:
        """Take a container's unnamed volumes away; `sweep` deletes them."""
        for path in self.places.volumes.glob(_unnamed(record, "*")):
            rootfs.set_aside(path)

    def sweep(self) -> None:
        """Delete what was discarded, also by an earlier process. It takes as long as there is to delete."""
        for directory in (self.places.records, self.places.volumes):
            rootfs.sweep(directory)

    def clear_top(self) -> None:
        """Remove the control group that all containers share, where none is left in it. None may be starting."""
        for path in self._top.paths():
            with contextlib.suppress(OSError):
                path.rmdir()

    async def _addressed(self, record: Record) -> tuple[Record, Ready | None]:
        options = record.options
        if options.network in ("host", "none"):
            return replace(record, address="", ports=()), None
        if options.network not in ("", "default", "bridge"):
            raise LaunchError(f"network {options.network} not found")
        wanted = list(options.ports)
        if options.publish_all:
            given = {(port.container_port, port.protocol) for port in wanted}
            for text in record.exposed:
                number, _, kind = text.partition("/")
                if (int(number), kind or "tcp") not in given:
                    wanted.append(PublishedPort(int(number), kind or "tcp"))
        ports = self.network.ports.take(wanted)
        try:
            ready = await self.pool.take(options.ip)
        except BaseException:
            self.network.ports.free(ports)
            raise
        return replace(record, address=ready.address, ports=ports), ready

    def _prepare(self, record: Record, image: Image, place: Path, network: str) -> None:
        options = record.options
        root = rootfs.mount(place, image.layers, passing=options.remove)
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
        binds = self._binds(record)
        spec = oci_spec.build(record, root, place, user, binds, swap=self._swap, every=self._every, network=network)
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
                name = item.source or _unnamed(record, number)
                if not VOLUME.match(name):
                    raise LaunchError(f'"{name}" includes invalid characters for a local volume name')
                source = self.places.volumes / name
                source.mkdir(mode=0o755, parents=True, exist_ok=True)
            found.append((str(source), item.target, item.read_only))
        return found


def _unnamed(record: Record, number: object) -> str:
    return f"{record.id[:32]}-{number}"


def user_of(root: Path, text: str) -> oci_spec.User:
    """`name`, `uid`, with `:group` or not, as the container's own /etc/passwd and /etc/group have it."""
    user, _, group = text.partition(":")
    uid, gid, name, known = (int(user) if user.isdigit() else 0), 0, user, not user or user.isdigit()
    for fields in _table(root, "etc/passwd", 7):
        if fields[0] == user or (known and fields[2] == str(uid)):
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
