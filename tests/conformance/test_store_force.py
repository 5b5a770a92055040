"""`--force-new-cluster`: of three members two are gone for good; the third goes on, and the cluster grows again."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.ports import free_ports
from tests.conformance.members import Member, Members, etcdctl_path, running, until

pytestmark = pytest.mark.skipif(etcdctl_path() is None, reason="etcdctl is not here: run make setup")

FORCE = "--force-new-cluster"


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Members]:
    with running(Members(tmp_path, 3, ["--heartbeat-interval=50", "--election-timeout=500"])) as members:
        yield members


def listed(members: Members, at: list[Member]) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(members.ctl("member", "list", "-w", "json", at=at))
    return answer


@pytest.mark.parametrize("leads", [True, False])
def test_the_one_that_is_left_goes_on_and_the_cluster_grows_again(three: Members, leads: bool) -> None:
    for number in range(50):
        three.ctl("put", f"k{number:02}", f"v{number}")
    three.ctl("put", "--lease", three.ctl("lease", "grant", "600").split()[1], "leased", "v")
    leader = three.leader()
    kept = next(member for member in three.members if (member is leader) == leads)
    before = listed(three, [kept])
    three.ctl("get", "leased", at=[kept])  # then it has all of it
    revision = three.status(kept)["header"]["revision"]
    for member in three.members:
        if member is not kept:
            member.stop(signal.SIGKILL)
            shutil.rmtree(member.directory / member.name)
    kept.stop(signal.SIGKILL)
    # Once more than needed: a crash on the way changes nothing.
    for word in (FORCE, FORCE, "--name=m9"):
        kept.start(three.initial, "new", word)
        three.members = [kept]
        three.wait()
        now = listed(three, [kept])
        assert now["header"]["cluster_id"] == before["header"]["cluster_id"]
        assert [member["ID"] for member in now["members"]] == [now["header"]["member_id"]]
        assert now["members"][0] in before["members"]
        kept.stop(signal.SIGKILL)
    log = kept.log.read_text()
    gone = {f"{member['ID']:x}" for member in before["members"]} - {f"{now['header']['member_id']:x}"}
    told = next(line for line in log.splitlines() if "goes on alone" in line)
    assert all(member in told for member in gone), told
    assert log.count("goes on alone") == 1 and "has no effect" in log

    kept.start(three.initial)
    three.wait()
    assert len(three.ctl("get", "k", "--prefix", "--keys-only").split()) == 50
    assert three.status(kept)["header"]["revision"] == revision
    assert three.ctl("get", "leased", "--print-value-only").strip() == "v"
    assert three.ctl("lease", "list").count("\n") == 2
    for name in ("m7", "m8"):
        client, peer = free_ports(2)
        fresh = Member(name, three.directory, client, peer, list(three.extra))
        # Not before the one added last is connected.
        add = ("member", "add", name, f"--peer-urls={fresh.peer_url}")
        until(f"{name} added", lambda add=add: three.ctl_raw(*add, at=[kept]).returncode == 0)
        three.members.append(fresh)
        fresh.start(three.initial, "existing")
        three.wait()
    assert len(listed(three, [kept])["members"]) == 3
    three.ctl("put", "after", "v")
    # Any of the three may go now.
    kept.stop(signal.SIGKILL)
    rest = three.members[1:]
    until("an answer of the rest", lambda: three.ctl("get", "after", at=rest, check=False) == "after\nv\n")
    assert len(three.ctl("get", "k", "--prefix", "--keys-only", at=rest).split()) == 50


def test_on_a_member_without_data_it_means_nothing(tmp_path: Path) -> None:
    alone = Members(tmp_path, 1)
    try:
        alone.members[0].start(alone.initial, "new", FORCE)
        alone.wait()
        alone.ctl("put", "k", "v")
    finally:
        alone.close()
