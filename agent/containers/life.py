"""What this process knows of one container beyond its record."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

from agent.containers.records import Record
from agent.docker_steps import ContainerFailure
from agent.monitor.link import Attachment, Link

log = logging.getLogger(__name__)


class NoContainer(ContainerFailure):
    """There is none of that name."""


class Invalid(ContainerFailure):
    """What was asked for is no container."""


class Conflict(ContainerFailure):
    """A name is taken, or a container is in another state."""


@dataclass
class Life:
    """A container that this process knows: its record, and what its present run needs."""

    record: Record
    link: Link | None = None
    task: asyncio.Task[None] | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Its present run did, or its last one; of one that never ran, its first run."""
    ended_next: asyncio.Event = field(default_factory=asyncio.Event)
    """The run after that did."""
    adopted: float = 0.0
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    """Its program runs: a signal before that would end the runtime's own `start`."""
    removed: asyncio.Event = field(default_factory=asyncio.Event)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: list[asyncio.Future[Attachment]] = field(default_factory=list)

    def next_run(self) -> None:
        """A run begins: what the last one left is not its own."""
        if self.ended.is_set():
            self.ended, self.ended_next = self.ended_next, asyncio.Event()
        self.begun.clear()


@contextlib.contextmanager
def logged(record: Record, what: str) -> Iterator[None]:
    """Log a failure, of whatever kind, of what may not keep back the news of a container's end."""
    try:
        yield
    except Exception as error:
        log.exception("container %s: %s: %s", record.name, what, error)
