"""Go programs on etcd's own packages and our recipes, at work on the same names at once. Where Go is."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import shutil
import subprocess
from collections import Counter as Counts
from pathlib import Path

import pytest

from kvstore.client import Client
from kvstore.recipes import Barrier, Counter, DoubleBarrier, Lock, PriorityQueue, Queue, Transaction, transact
from tests.conformance.members import ROOT
from tests.unit.kvstore.members import Cluster
from tests.unit.kvstore.recipes.conftest import PATIENCE_S, Opener, keys

SOURCE = Path(__file__).with_name("go") / "main.go"
PLACE = ROOT / "build/peers-go-recipes"
MODULE = "go.etcd.io/etcd/client/v3"
BUILD_S = 600
ITEMS = 15


@pytest.fixture(scope="module")
def program() -> Path:
    """Go's side, built once and again when its source changes."""
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        pytest.skip("Go is not here")
    PLACE.mkdir(parents=True, exist_ok=True)
    with (PLACE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        main, built = PLACE / "main.go", PLACE / "recipes"
        if not built.is_file() or main.read_text() != SOURCE.read_text():
            main.write_text(SOURCE.read_text())
            (PLACE / "go.mod").write_text("module recipes\n\ngo 1.24\n")
            for words in (["get", f"{MODULE}@latest"], ["mod", "tidy"], ["build", "-o", "recipes", "."]):
                done = subprocess.run([go, *words], cwd=PLACE, capture_output=True, text=True, timeout=BUILD_S)
                if done.returncode and words[0] != "build":
                    pytest.skip(f"etcd's Go client can't be had here: {done.stderr.strip()[-200:]}")
                assert done.returncode == 0, done.stderr
    return built


class Go:
    """Runs Go's side against the cluster."""

    def __init__(self, program: Path, cluster: Cluster) -> None:
        self._command = [str(program), ",".join(cluster.endpoints)]

    async def __call__(self, what: str, name: str, count: int = 1, *more: str) -> list[str]:
        """Do something so often; the lines that it prints."""
        words = [*self._command, what, name, str(count), *more]
        process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
        try:
            printed, _ = await process.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        assert process.returncode == 0
        return printed.decode().split()


@pytest.fixture
def go(program: Path, cluster: Cluster) -> Go:
    return Go(program, cluster)


@pytest.mark.parametrize("kind", [Queue, PriorityQueue])
async def test_items_of_either_side_go_to_either_side_once(
    go: Go, opened: Opener, kind: type[Queue] | type[PriorityQueue]
) -> None:
    put, get = ("put", "get") if kind is Queue else ("urge", "urgent")
    taken: list[str] = []

    async def produce() -> None:
        queue = kind(await opened(), b"jobs")
        for number in range(ITEMS):
            item = b"python.%d" % number
            await (queue.put(item) if isinstance(queue, Queue) else queue.put(item, number % 3))

    async def consume() -> None:
        queue = kind(await opened(), b"jobs")
        for _ in range(ITEMS):
            taken.append((await queue.get()).decode())

    async with asyncio.timeout(PATIENCE_S):
        theirs, *_ = await asyncio.gather(go(get, "jobs", ITEMS), go(put, "jobs", ITEMS), produce(), consume())
    items = [f"{side}.{number}" for side in ("go", "python") for number in range(ITEMS)]
    assert Counts(taken + theirs) == Counts(items)


async def test_priorities_are_one_order(go: Go, opened: Opener) -> None:
    queue = PriorityQueue(await opened(), b"jobs")
    async with asyncio.timeout(PATIENCE_S):
        await go("urge", "jobs", 3)
        for number in range(3):
            await queue.put(b"python.%d" % number, number)
        assert await go("urgent", "jobs", 3) == ["go.0", "python.0", "go.1"]
        assert [await queue.get() for _ in range(3)] == [b"python.1", b"go.2", b"python.2"]


async def test_barriers(go: Go, client: Client) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await go("hold", "gate")
        ours = asyncio.create_task(Barrier(client, b"gate").wait())
        theirs = asyncio.create_task(go("wait", "gate"))
        await asyncio.sleep(0.5)
        assert not ours.done() and not theirs.done()
        await Barrier(client, b"gate").release()
        await asyncio.gather(ours, theirs)
        await Barrier(client, b"gate").hold()
        waiting = asyncio.create_task(Barrier(client, b"gate").wait())
        await asyncio.sleep(0.2)
        await go("release", "gate")
        await waiting


@pytest.mark.parametrize("first", ["ours", "theirs"])
async def test_double_barriers(go: Go, client: Client, opened: Opener, first: str) -> None:
    async def meet() -> None:
        async with DoubleBarrier(await opened(), b"race", 2):
            pass

    async with asyncio.timeout(PATIENCE_S):
        tasks = [asyncio.ensure_future(meet() if first == "ours" else go("meet", "race"))]
        while not await keys(client, b"race/waiters/"):
            await asyncio.sleep(0.01)
        tasks.append(asyncio.ensure_future(go("meet", "race") if first == "ours" else meet()))
        await asyncio.gather(*tasks)
    assert await keys(client, b"race") == []


async def test_transactions_and_counters_count_with_those_of_go(go: Go, client: Client, opened: Opener) -> None:
    counter, session = Counter(await opened(), b"n"), await opened()

    async def body(transaction: Transaction) -> None:
        transaction.put(b"n", b"%d" % (int(await transaction.get(b"n") or b"0") + 1))

    async def ours() -> None:
        for _ in range(ITEMS):
            await transact(session, body)
            await counter.add()

    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(go("add", "n", ITEMS), go("add", "n", ITEMS), ours())
    assert (await client.get(b"n")).kvs[0].value == b"%d" % (4 * ITEMS)


async def test_locks(go: Go, opened: Opener, tmp_path: Path) -> None:
    number = tmp_path / "number"
    number.write_text("0")

    async def ours() -> None:
        session = await opened()
        for _ in range(ITEMS):
            async with Lock(session, b"mutex"):
                before = int(number.read_text())
                await asyncio.sleep(0.02)
                number.write_text(f"{before + 1}")

    async with asyncio.timeout(2 * PATIENCE_S):
        await asyncio.gather(*[go("lock", "mutex", ITEMS, str(number)) for _ in range(2)], ours(), ours())
    assert int(number.read_text()) == 4 * ITEMS
