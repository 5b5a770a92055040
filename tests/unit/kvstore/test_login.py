"""A client of a store with authentication, ours and Debian's etcd."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kvstore import backup
from kvstore.client import Client
from kvstore.errors import StoreError
from kvstore.watching import Watch
from tests.unit.kvstore.members import Cluster

ROOT = ("root", "secret")
PATIENCE_S = 60.0


@pytest.fixture(scope="module", params=[True, False], ids=["ours", "etcd"])
def locked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A member that lets in only who says who it is."""
    cluster = Cluster(tmp_path_factory.mktemp("locked"), ours=request.param)

    async def lock() -> None:
        async with Client(cluster.endpoints, timeout=PATIENCE_S) as client:
            await client.call("Auth/UserAdd", {"name": ROOT[0], "password": ROOT[1]})
            await client.call("Auth/RoleAdd", {"name": "root"})
            await client.call("Auth/UserGrantRole", {"user": "root", "role": "root"})
            await client.call("Auth/AuthEnable", {})

    asyncio.run(lock())
    yield cluster
    cluster.close()


@asynccontextmanager
async def user(cluster: Cluster, login: tuple[str, str] | None = ROOT) -> AsyncIterator[Client]:
    async with Client(cluster.endpoints, timeout=PATIENCE_S, login=login) as client:
        yield client


async def test_who_is_known_is_let_in(locked: Cluster) -> None:
    async with user(locked) as client:
        await client.put(b"k", b"1")
        assert (await client.get(b"k")).kvs[0].value == b"1"
        assert (await client.call("Auth/UserList", {}, endpoint=locked.endpoints[0]))["users"] == ["root"]
        lease = await client.lease_grant(60)
        assert (await client.lease_keepalive(lease.id)).ttl == 60
        assert (await client.status(locked.endpoints[0])).version


@pytest.mark.parametrize(
    ("login", "message"),
    [
        (None, "etcdserver: user name is empty"),
        (("root", "wrong"), "etcdserver: authentication failed, invalid user ID or password"),
        (("", "no such token"), "etcdserver: invalid auth token"),
    ],
)
async def test_who_is_not_known_is_told(locked: Cluster, login: tuple[str, str] | None, message: str) -> None:
    async with user(locked, login) as client:
        with pytest.raises(StoreError) as raised:
            await client.get(b"k")
        assert raised.value.message == message


async def test_a_token_that_the_store_forgot_is_asked_for_anew(locked: Cluster) -> None:
    """etcd's simple tokens are gone with the process; calls, writes too, and watches go on all the same."""
    async with user(locked) as client, client.watch(b"w") as watch:
        await client.put(b"w", b"before")
        assert await value(watch) == b"before"
        locked.kill(0)
        locked.restart(0)
        await client.put(b"w", b"after")
        assert await value(watch) == b"after"


async def value(watch: Watch) -> bytes:
    """Of the next event."""
    async with asyncio.timeout(PATIENCE_S):
        return (await anext(watch)).events[0].kv.value


def test_a_snapshot_is_for_who_is_known(locked: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "saved.db"
    with pytest.raises(backup.BackupError, match="user name is empty"):
        backup.save(locked.endpoints[0], path)
    backup.save(locked.endpoints[0], path, login=ROOT)
    assert backup.status(path).total_keys > 0


def test_the_load_of_kvctl_is_the_users(locked: Cluster) -> None:
    words = ["bench", "put", "--total", "50", "--json"]
    endpoints = f"--endpoints={locked.endpoints[0]}"
    argv = [sys.executable, "-m", "cli.kvctl.app", endpoints, "--user", ":".join(ROOT), *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert json.loads(done.stdout)["ops"] == 50
    refused = subprocess.run([*argv[:4], *words], capture_output=True, text=True, timeout=PATIENCE_S)
    assert refused.returncode == 1 and "user name is empty" in refused.stderr


async def test_a_login_is_no_harm_where_nobody_asks(tmp_path_factory: pytest.TempPathFactory) -> None:
    cluster = Cluster(tmp_path_factory.mktemp("open"), ours=True)
    try:
        async with user(cluster) as client:
            await client.put(b"k", b"1")
    finally:
        cluster.close()
