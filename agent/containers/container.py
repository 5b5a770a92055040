"""The containers of a machine, from create to remove, also across restarts of this process. What a container is made
of is decided in `oci_spec`; how it is started, in `launch`. Units and the Docker API both use this class."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import signal as signals
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

from agent.cgroups import CgroupError
from agent.containers import failures, rootfs, security
from agent.containers.image_settings import record_of
from agent.containers.launch import Launcher, Places
from agent.containers.life import Conflict, Invalid, Life, NoContainer, logged
from agent.containers.naming import NAME, new_name
from agent.containers.records import Record, Records, goes, left_over, registered
from agent.containers.runtime import NoRuntime
from agent.docker_steps import ContainerFailure, UnitContainer
from agent.images.store import Image, ImageError, Images
from agent.interfaces import ContainerRecord
from agent.isolation import REASON
from agent.monitor.link import Attachment, MonitorError, MonitorLost, MonitorSilent, connect, read_exit, reconnect
from agent.monitor.model import Exited, Started
from agent.network.bridge import Bridge
from agent.units.errors import BadValue
from agent.units.values import signal

STOP_TIMEOUT_S = 10.0
KILL_TIMEOUT_S = 10.0
BEGIN_TIMEOUT_S = 10.0
LOST_CODE = 255
"""Of a container whose end nobody saw: its machine or its monitor was killed."""
REMOVE_GRACE_S = 10.0
Report = Callable[[Sequence[ContainerRecord], Sequence[str]], Awaitable[None]]

log = logging.getLogger(__name__)


class Containers:
    """Every container here. Also what a unit's docker lines run on (`agent.docker_steps.ContainerRunner`)."""

    def __init__(self, data_dir: Path, run_dir: Path, boot: str, report: Report | None = None) -> None:
        self.images = Images(data_dir / "images")
        self._records = Records(data_dir / "containers")
        places = Places(data_dir / "containers", data_dir / "volumes", run_dir / "c", run_dir / "runtime")
        places.run.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._launcher = Launcher(places, Bridge())
        self._boot, self._report = boot, report
        self._lives: dict[str, Life] = {}
        self._sweeping = asyncio.Event()

    async def adopt(self) -> None:
        """Find again what an earlier process started; what ended meanwhile gets its exit code."""
        if complaint := security.missing():
            log.warning("%s", complaint)
        with contextlib.suppress(NoRuntime):  # a start will say so
            await self._launcher.find_runtime()
        found = list(self._records.all())
        dropped = left_over(found, self._boot)
        for record in found:
            life = self._lives[record.id] = Life(record, adopted=time.time())
            if record.id in dropped:
                await self._drop(life)
                continue
            if record.state != "running":
                with logged(record, "can't clear away what its start left"):
                    if await self._launcher.undo_cut_off(record):
                        log.warning("container %s: its start was cut off, and is cleared away", record.name)
                if record.state == "exited":
                    life.ended.set()
                    self._removing(life)
                continue
            run = self._launcher.places.run / record.id[:24]
            try:
                if record.boot != self._boot:
                    raise MonitorLost("the machine was started again")
                life.link = await connect(run)
            except MonitorSilent:
                pass  # it is taken to run; `_go_on` asks again
            except MonitorError:
                await self._found_ended(life, run)
                continue
            if record.address:
                with logged(record, "can't publish its ports again"):
                    await self._launcher.readdress(record)
            await self._tell(record, runs=True)
            life.task = asyncio.create_task(self._go_on(life, run), name=f"container {record.name}")
        await self._launcher.drop_old_rules()

    async def _found_ended(self, life: Life, run: Path) -> None:
        end = None
        with logged(life.record, "can't tell its end"):
            end = read_exit(run) if life.record.boot == self._boot else None
        await self._ended(life, end)
        self._removing(life)

    async def _go_on(self, life: Life, run: Path) -> None:
        """Watch a container that an earlier fleetd started, as soon as its monitor answers."""
        try:
            life.link = life.link or await reconnect(run)
        except MonitorError:
            await self._found_ended(life, run)
            return
        with contextlib.suppress(MonitorError):  # refused, unless the order was cut off
            await life.link.start()
        await self._watch(life)

    async def run(self) -> None:
        """Delete what was removed and keep networks ready, until cancelled; then let go: containers live on."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._launcher.pool.run(), name="networks made ahead")
                while True:
                    await asyncio.to_thread(self._launcher.sweep)
                    await self._sweeping.wait()
                    self._sweeping.clear()
        finally:
            for life in self._lives.values():
                if life.task is not None:
                    life.task.cancel()
                if life.link is not None:
                    await life.link.close()

    async def fetch(self, image: str, policy: str) -> None:
        """Have an image; nothing is pulled by this version, so it has to be here."""
        try:
            self.images.resolve(image)
        except ImageError as error:
            raise ContainerFailure(f"{error}: it is not on this machine; import or load it first.") from error

    async def create(self, wanted: UnitContainer) -> str:
        """Make a container; answer its id."""
        options = wanted.options
        name = options.name or new_name({life.record.name for life in self._lives.values()})
        if not NAME.match(name):
            raise Invalid(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
        for life in self._lives.values():
            if life.record.name == name and wanted.unit == life.record.unit != "" and not life.record.started:
                await self._drop(life)  # made, but never saved by the unit: fleetd was killed in between
                break
            if life.record.name == name:
                raise Conflict(
                    f'Conflict. The container name "/{name}" is already in use by container "{life.record.id}".'
                    " You have to remove (or rename) that container to be able to reuse that name."
                )
        record = record_of(wanted, self._image(options.image), name, self._boot, self._records.place)
        life = self._lives[record.id] = Life(record)  # before anything is awaited: its name is taken
        try:
            self._launcher.check(record)
            async with life.lock:
                await asyncio.to_thread(self._records.save, record)
        except (CgroupError, OSError) as error:
            del self._lives[record.id]
            await asyncio.to_thread(shutil.rmtree, self._records.place(record.id), ignore_errors=True)
            raise failures.of(error) from error
        return record.id

    async def find(self, name: str) -> str | None:
        """The id behind a name or the beginning of an id."""
        wanted = name.removeprefix("/")
        for life in self._lives.values():
            if wanted in (life.record.name, life.record.id):
                return life.record.id
        found = [container for container in self._lives if wanted and container.startswith(wanted)]
        return found[0] if len(found) == 1 else None

    def get(self, container: str) -> Record:
        """The record of an id."""
        return self._life(container).record

    def list(self) -> list[Record]:
        """All, the youngest first."""
        return sorted((life.record for life in self._lives.values()), key=lambda record: -record.created)

    def isolated(self, unit: str, since: float) -> set[str]:
        """Those of a unit that their monitors ended after a time for want of the cluster's answer."""
        cut = [one for one in self.list() if one.unit == unit and one.state == "exited" and one.error == REASON]
        return {one.id for one in cut if one.finished > since}

    async def start(self, container: str) -> int:
        """Start it; answer its first process."""
        life = self._life(container)
        try:
            async with life.lock:
                if life.record.state == "running":
                    return life.record.pid
                record = await self._launch(life)
        except ContainerFailure:
            if life.record.options.remove and not life.record.unit:
                await self.remove(container, force=True, volumes=True)
            raise
        await self._tell(record, runs=True)
        return record.pid

    async def _launch(self, life: Life) -> Record:
        life.next_run()
        record, link = life.record, None
        try:
            record, link = await self._launcher.launch(record, self._image(record.image))
            life.link = link
            record = replace(record, state="running", boot=self._boot, started=time.time(), error="", code=0)
            for future in life.waiting:
                if not future.done():
                    future.set_result(await link.attach())
            life.waiting.clear()
            await asyncio.to_thread(self._records.save, record)
            life.record = record
            await link.start()
        except Exception as error:  # of whatever kind: who waits for its end must not wait for ever
            failure = failures.of(error)
            if link is not None:
                with logged(record, "can't clear away"):
                    await self._launcher.undo(record, link)
            await self._give_up(life, str(failure), failure.code)
            raise failure from error
        life.task = asyncio.create_task(self._watch(life), name=f"container {record.name}")
        return record

    async def has_started(self, container: str) -> bool:
        """Whether it runs, or ran and ended."""
        return self._life(container).record.started > 0

    async def wait(self, container: str) -> int:
        """Wait for its (next) end and answer its code; at once when it has ended."""
        life = self._life(container)
        await life.ended.wait()
        return life.record.code

    async def wait_next(self, container: str) -> int:
        """Wait for the end of its next run."""
        life = self._life(container)
        await (life.ended_next if life.ended.is_set() else life.ended).wait()
        return life.record.code

    async def wait_removed(self, container: str) -> int:
        """Wait until it is gone; answer its last code."""
        life = self._life(container)
        await life.removed.wait()
        return life.record.code

    async def stop(self, container: str, patience: float | None) -> None:
        """Its stop signal, then SIGKILL after `patience` seconds (None: its own)."""
        life = self._life(container)
        if life.record.state != "running":
            return
        own = life.record.options.stop_timeout
        wait = patience if patience is not None else STOP_TIMEOUT_S if own is None else float(own)
        await self.signal(container, None)
        try:
            async with asyncio.timeout(wait if wait >= 0 else None):
                await life.ended.wait()
        except TimeoutError:
            await self.signal(container, signals.SIGKILL)
            try:
                async with asyncio.timeout(KILL_TIMEOUT_S):
                    await life.ended.wait()
            except TimeoutError as error:
                reason = f"container {container} did not end within {KILL_TIMEOUT_S:.0f} s of SIGKILL"
                raise ContainerFailure(reason, 1) from error

    async def signal(self, container: str, number: int | None) -> None:
        """Send a signal, or its stop signal for None."""
        life = self._life(container)
        if life.record.state != "running" or life.link is None:
            raise Conflict(f"Container {life.record.id} is not running")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BEGIN_TIMEOUT_S):
                await life.begun.wait()
        if life.link is None:
            return
        try:
            await life.link.signal(number or signal(life.record.stop_signal))
        except (MonitorError, BadValue) as error:
            raise ContainerFailure(str(error)) from error

    async def remove(self, container: str, *, force: bool, volumes: bool) -> None:
        """Remove it; a running one with `force` alone. Named volumes stay."""
        life = self._life(container)
        if life.record.state == "running":
            if not force:
                raise Conflict(
                    f'cannot remove container "/{life.record.name}": container is running: stop the container before'
                    " removing or force remove"
                )
            await self.stop(container, 0)
        async with life.lock:
            if container not in self._lives:
                return
            await asyncio.to_thread(rootfs.discard, self._records.place(container))
            del self._lives[container]
            if volumes or life.record.options.remove:
                with logged(life.record, "can't remove its volumes"):
                    await asyncio.to_thread(self._launcher.discard_volumes, life.record)
        for event in (life.ended, life.ended_next, life.removed):
            event.set()
        self._sweeping.set()

    async def _drop(self, life: Life) -> None:
        """Remove one that surely does not run: nobody is left who waits for its code."""
        life.record = replace(life.record, state="exited")
        await self.remove(life.record.id, force=True, volumes=True)

    async def attach(self, container: str) -> Attachment:
        """Its streams; of one that is not started, from its very beginning (this waits for the start)."""
        life = self._life(container)
        if life.record.state == "running" and life.link is not None:
            return await life.link.attach()
        future: asyncio.Future[Attachment] = asyncio.get_running_loop().create_future()
        life.waiting.append(future)
        return await future

    async def resize(self, container: str, rows: int, columns: int) -> None:
        """Set its tty's size."""
        life = self._life(container)
        if life.link is not None and life.record.state == "running":
            with contextlib.suppress(MonitorError):
                await life.link.resize(rows, columns)

    async def _watch(self, life: Life) -> None:
        assert life.link is not None
        end: Exited | None = None
        with logged(life.record, "its monitor is lost"):
            end = await life.link.wait(lambda event: life.begun.set() if isinstance(event, Started) else None)
            await life.link.forget()
        await self._ended(life, end)
        if goes(life.record):
            await self._remove(life)

    def _removing(self, life: Life) -> None:
        if goes(life.record):
            life.task = asyncio.create_task(self._remove(life), name=f"container {life.record.name}")

    async def _remove(self, life: Life) -> None:
        if time.time() - life.adopted < REMOVE_GRACE_S:
            # A client that waits for it was cut off with the daemon: let it come back for the exit code.
            await asyncio.sleep(REMOVE_GRACE_S)
        try:
            await self.remove(life.record.id, force=True, volumes=True)
        except NoContainer:
            return  # somebody was faster
        except (OSError, ContainerFailure) as error:
            log.error("container %s can't be removed: %s", life.record.name, error)

    async def _ended(self, life: Life, end: Exited | None) -> None:
        code, reason, at = LOST_CODE, "its end was not seen", time.time()
        if end is not None:
            code = end.code if end.code is not None else 128 + (end.signal or 0)
            reason, at = end.reason, end.at
        oom_killed = False
        with logged(life.record, "can't tell whether memory ran out"):
            oom_killed = await asyncio.to_thread(self._launcher.oom_killed, life.record)
        with logged(life.record, "can't clear away"):
            await self._launcher.clear(life.record)
        async with life.lock:  # no next start may save its own before this is
            ended = replace(life.record, state="exited", code=code, error=reason, finished=at, pid=0)
            life.record = replace(ended, oom_killed=oom_killed)
            life.link = None
            life.begun.set()
            with logged(life.record, "can't save its end"):  # the monitor's record of it stays
                if life.record.id in self._lives:
                    await asyncio.to_thread(self._records.save, life.record)
            life.ended.set()
        if not any(other.record.state == "running" or other.lock.locked() for other in self._lives.values()):
            self._launcher.clear_top()
        await self._tell(life.record, runs=False)

    async def _give_up(self, life: Life, reason: str, code: int) -> None:
        for future in life.waiting:
            if not future.done():
                future.set_exception(ContainerFailure(reason, code))
        life.waiting.clear()
        life.link = None
        life.record = replace(life.record, state="created", code=code, error=reason)
        with logged(life.record, "can't save its failure"):
            await asyncio.to_thread(self._records.save, life.record)
        life.ended.set()

    async def _tell(self, record: Record, *, runs: bool) -> None:
        with logged(record, "can't be reported"):
            if self._report is not None:
                await (self._report([registered(record)], []) if runs else self._report([], [record.id]))

    def _life(self, container: str) -> Life:
        if (life := self._lives.get(container)) is None:
            raise NoContainer(f"No such container: {container}", 1)
        return life

    def _image(self, reference: str) -> Image:
        try:
            return self.images.resolve(reference)
        except ImageError as error:
            raise ContainerFailure(str(error)) from error
