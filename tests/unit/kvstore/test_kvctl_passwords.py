"""kvctl asks for passwords at a terminal, and shows none."""

from __future__ import annotations

import os
import pty
import select
import sys
import time
from collections.abc import Iterator, Sequence

import pytest

from kvstore.client import Client
from tests.unit.kvstore.members import Cluster

PATIENCE_S = 60.0
PASSWORD = "long and secret"


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("users"), ours=False)
    yield cluster
    cluster.close()


def typed(cluster: Cluster, words: Sequence[str], talk: Sequence[tuple[str, str]]) -> tuple[int, str]:
    """Exit code and output of kvctl at a terminal of its own, where each question gets its answer."""
    child, terminal = pty.fork()
    if child == 0:
        argv = [sys.executable, "-m", "cli.kvctl.app", f"--endpoints={cluster.endpoints[0]}", *words]
        os.execv(argv[0], argv)
    shown = ""
    try:
        for question, answer in [*talk, ("\0", "")]:
            shown += until(terminal, question)
            os.write(terminal, f"{answer}\n".encode())
    except EOFError as error:
        shown += str(error)
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown


def until(terminal: int, text: str) -> str:
    """What is shown until a text has come; EOFError with it when the program ends before."""
    shown = ""
    end = time.monotonic() + PATIENCE_S
    while text not in shown:
        assert select.select([terminal], [], [], max(0.0, end - time.monotonic()))[0], f"no {text!r} in {shown!r}"
        try:
            data = os.read(terminal, 4096)
        except OSError:  # Linux tells the end of a terminal so
            data = b""
        if not data:
            raise EOFError(shown)
        shown += data.decode()
    return shown


async def test_a_users_password_is_asked_for_twice(etcd: Cluster) -> None:
    talk = (("Password of alice: ", PASSWORD), ("again for confirmation: ", PASSWORD))
    code, shown = typed(etcd, ["user", "add", "alice"], talk)
    assert code == 0 and "User alice created" in shown and PASSWORD not in shown
    talk = (("Password of bob: ", "one"), ("again for confirmation: ", "two"))
    code, shown = typed(etcd, ["user", "add", "bob"], talk)
    assert code == 128 and "given passwords are different" in shown
    code, shown = typed(etcd, ["user", "passwd", "alice"], (("Password of alice: ", ""),))
    assert code == 128 and "empty password" in shown
    async with Client(etcd.endpoints) as client:
        assert (await client.call("Auth/UserList", {}))["users"] == ["alice"]


async def test_ones_own_password_is_asked_for_once(etcd: Cluster) -> None:
    async with Client(etcd.endpoints, timeout=PATIENCE_S) as client:
        await client.call("Auth/UserAdd", {"name": "root", "password": PASSWORD})
        await client.call("Auth/RoleAdd", {"name": "root"})
        await client.call("Auth/UserGrantRole", {"user": "root", "role": "root"})
        await client.call("Auth/AuthEnable", {})
    code, shown = typed(etcd, ["--user", "root", "endpoint", "health", "--cluster"], (("Password: ", PASSWORD),))
    assert code == 0 and "is healthy" in shown and PASSWORD not in shown
    code, shown = typed(etcd, ["--user", "root", "get", "k"], (("Password: ", "wrong"),))
    assert code == 2 and "authentication failed, invalid user ID or password" in shown
