"""A load that remembers: writers that log every write, acknowledged or not, and readers that check what they see.

`python -m tests.storeload OUT TAG WRITERS ENDPOINT...` runs in a machine until its standard input ends. Each line
of OUT is one JSON object: a finished write (`key value begin end`, and `revision` when it was acknowledged), or at the
end a `summary`. Times are CLOCK_MONOTONIC seconds, the same in every machine of a lab.

A writer puts keys that nobody writes again, and after each a number of its own that only grows. Readers, one pinned to
each endpoint, read all the numbers linearizably: none may be older than what was acknowledged, or seen by any reader,
before the read began.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from kvstore.client import Client, prefix_end
from kvstore.errors import StoreError

CALL_TIMEOUT_S = 1.0
PAUSE_S = 0.008
"""Between two writes of a writer, and between two reads: the test's machines have their processors to share."""
RETRY_S = 0.05
PROBE_S = 0.05


class Load:
    """The state that writers and readers share; all of it belongs to one event loop."""

    def __init__(self, out: TextIO, tag: str) -> None:
        self._keys, self._numbers = f"load/{tag}/", f"number/{tag}/".encode()
        self._out = out
        self._floor: dict[bytes, int] = {}
        """By writer: the highest number that was acknowledged or read."""
        self._tried: dict[bytes, int] = {}
        self.stopping = False
        self.counts = {"acknowledged": 0, "failed": 0, "reads": 0, "failed reads": 0}
        self.violations: list[str] = []

    async def _put(self, client: Client, key: bytes, value: bytes) -> bool:
        line: dict[str, Any] = {"key": key.decode(), "value": value.decode(), "begin": time.monotonic()}
        try:
            line["revision"] = (await client.put(key, value)).header.revision
            self.counts["acknowledged"] += 1
        except StoreError as error:
            line["error"] = str(error)
            self.counts["failed"] += 1
        line["end"] = time.monotonic()
        self._out.write(json.dumps(line) + "\n")
        return "revision" in line

    async def write(self, name: str, client: Client) -> None:
        """Put new keys, and the number, until told to stop."""
        number, own = 0, self._numbers + name.encode()
        while not self.stopping:
            number += 1
            text = str(number).encode()
            self._tried[own] = number
            await self._put(client, f"{self._keys}{name}/{number:06}".encode(), text)
            if await self._put(client, own, text):
                self._floor[own] = max(self._floor.get(own, 0), number)
                await asyncio.sleep(PAUSE_S)
            else:
                # What failed may still be applied, after whatever we write next: that must be another key.
                own = self._numbers + f"{name}.{number}".encode()
                await asyncio.sleep(RETRY_S)

    async def probe(self, client: Client) -> None:
        """Begin writes at a steady pace, whether earlier ones were answered or not: they show when service is back."""
        number = 0
        async with asyncio.TaskGroup() as tasks:
            while not self.stopping:
                number += 1
                tasks.create_task(self._put(client, f"{self._keys}probe/{number:06}".encode(), b"probe"))
                await asyncio.sleep(PROBE_S)

    async def read(self, endpoint: str, client: Client) -> None:
        """Read the numbers through one member, and hold them against what was known when the read began."""
        while not self.stopping:
            known = dict(self._floor)
            try:
                found = await client.get(self._numbers, range_end=prefix_end(self._numbers))
            except StoreError:
                self.counts["failed reads"] += 1
                await asyncio.sleep(RETRY_S)
                continue
            self.counts["reads"] += 1
            seen = {kv.key: int(kv.value) for kv in found.kvs}
            for key, least in known.items():
                if seen.get(key, 0) < least:
                    self.violations.append(f"{endpoint}: {key!r} is {seen.get(key)} after {least}")
            for key, number in seen.items():
                if number > self._tried.get(key, 0):
                    self.violations.append(f"{endpoint}: {key!r} is {number}, which nobody wrote")
                self._floor[key] = max(self._floor.get(key, 0), number)
            await asyncio.sleep(PAUSE_S)


async def run(out: Path, tag: str, writers: int, endpoints: Sequence[str]) -> None:
    """Load the store until standard input ends."""
    clients: list[Client] = []

    def client(urls: Sequence[str]) -> Client:
        clients.append(Client(urls, timeout=CALL_TIMEOUT_S))
        return clients[-1]

    with out.open("w", buffering=1) as sink:
        load = Load(sink, tag)
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
        async with asyncio.TaskGroup() as tasks:
            for at in range(writers):
                order = [*endpoints[at % len(endpoints) :], *endpoints[: at % len(endpoints)]]
                tasks.create_task(load.write(f"w{at}", client(order)))
            tasks.create_task(load.probe(client(endpoints)))
            for endpoint in endpoints:
                tasks.create_task(load.read(endpoint, client([endpoint])))
            await ended.wait()
            load.stopping = True
        for one in clients:
            await one.close()
        sink.write(json.dumps({"summary": load.counts, "violations": load.violations}) + "\n")


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:]))
