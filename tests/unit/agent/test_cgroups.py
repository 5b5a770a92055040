"""Control groups: what is detected and written, as tables; and real groups where the host lets us make them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import cgroups
from agent.cgroups import Cgroup, CgroupError, Limits, weight_of_shares, writes
from agent.hierarchies import Hierarchy, Layout, detect, own_root


def tree(version: int, *controllers: str, own: str = "") -> Hierarchy:
    mount = Path("/sys/fs/cgroup") / (controllers[0] if version == 1 else "")
    return Hierarchy(frozenset(controllers), mount, 1 if version == 1 else 2, own)


V1 = Layout((tree(1, "cpu", "cpuacct"), tree(1, "memory"), tree(1, "pids"), tree(1, "cpuset"), tree(1, "freezer")))
HYBRID = Layout((*V1.hierarchies, tree(2, "hugetlb")))
MIXED = Layout((tree(1, "cpu"), tree(2, "memory", "pids")))
V2 = Layout((tree(2, "cpu", "memory", "pids", "cpuset"),))
BARE = Layout((tree(1, "freezer"),))

MEMORY_V1 = [("memory", "memory.limit_in_bytes", "1000"), ("memory", "memory.memsw.limit_in_bytes", "1500")]
MEMORY_V2 = [("memory", "memory.max", "1000"), ("memory", "memory.swap.max", "500")]
CPU_V1 = [("cpu", "cpu.cfs_period_us", "100000"), ("cpu", "cpu.cfs_quota_us", "150000"), ("cpu", "cpu.shares", "512")]
CPU_V2 = [("cpu", "cpu.max", "150000 100000"), ("cpu", "cpu.weight", "20")]
PIDS = [("pids", "pids.max", "7")]


@pytest.mark.parametrize(
    ("layout", "mode", "expected"),
    [
        (V1, "v1", MEMORY_V1 + CPU_V1 + PIDS),
        (HYBRID, "hybrid", MEMORY_V1 + CPU_V1 + PIDS),
        (MIXED, "hybrid", MEMORY_V2 + CPU_V1 + PIDS),
        (V2, "v2", MEMORY_V2 + CPU_V2 + PIDS),
        (BARE, "v1", []),
    ],
)
def test_what_limits_write(layout: Layout, mode: str, expected: list[tuple[str, str, str]]) -> None:
    limits = Limits(memory_max=1000, swap_max=500, cpus=1.5, cpu_shares=512, pids_max=7)
    assert layout.mode == mode
    assert [(one.controller, one.file, one.value) for one in writes(layout, limits)] == expected


def test_no_limits_write_nothing() -> None:
    assert writes(V1, Limits()) == writes(V2, Limits()) == ()


@pytest.mark.parametrize(("shares", "weight"), [(0, 1), (2, 1), (1024, 39), (262144, 10000), (999999, 10000)])
def test_shares_become_weights(shares: int, weight: int) -> None:
    assert weight_of_shares(shares) == weight


def test_detects_separate_and_joined_v1_mounts_and_named_ones() -> None:
    mountinfo = (
        "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
        "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
        "33 31 0:30 /docker/a\\040b /sys/fs/cgroup/memory rw,relatime shared:3 - cgroup cgroup rw,memory\n"
        "34 31 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
        "35 31 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n"
        "36 31 0:32 / /elsewhere rw - cgroup2 cgroup2 rw\n"
    )
    cgroup = "4:name=systemd:/x\n3:memory:/docker/a b/inner\n2:cpu,cpuacct:/x\n0::/x\n"
    layout = detect(mountinfo, cgroup)
    assert layout.mode == "hybrid"
    memory = layout.of("memory")
    assert memory is not None
    assert (memory.own, memory.version) == ("inner", 1)
    cpu = layout.of("cpu")
    assert cpu is not None
    assert (cpu, cpu.mount, cpu.own) == (layout.of("cpuacct"), Path("/sys/fs/cgroup/cpu,cpuacct"), "x")
    assert [one.mount for one in layout.hierarchies if one.version == 2] == [Path("/sys/fs/cgroup/unified")]
    assert own_root(layout) == "fleet"
    assert own_root(Layout((tree(2, "cpu", own="fleet.scope"),))) == "fleet.scope/fleet"


@pytest.mark.parametrize("name", ["", "/", "../x", "a//b", "a/.."])
def test_names_stay_below_the_root(name: str) -> None:
    with pytest.raises(CgroupError):
        Cgroup(name, layout=V1)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make control groups")


@pytest.fixture
def group() -> Iterator[Cgroup]:
    made = Cgroup.create(f"test-{os.getpid()}/payload")
    yield made
    made.kill()
    Cgroup(f"test-{os.getpid()}").remove()
    assert not made.exists()


@needs_root
def test_members_are_seen_limited_and_killed(group: Cgroup) -> None:
    group.limit(Limits(pids_max=5, cpus=0.5, memory_max=64 << 20, swap_max=0))
    script = "sleep 1000 & sleep 1000 & wait"
    process = subprocess.Popen(["sh", "-c", script], preexec_fn=group.join)
    try:
        while len(group.procs()) < 3:
            pass
        assert process.pid in group.procs()
        group.kill()
        assert process.wait(60) == -9
        assert not group.procs()
        assert group.oom_kills() == 0
    finally:
        process.kill()


@needs_root
def test_an_oom_kill_is_counted(group: Cgroup) -> None:
    if group.layout.of("memory") is None:
        pytest.skip("no memory controller here")
    group.limit(Limits(memory_max=16 << 20, swap_max=0))
    program = "x = bytearray(200 << 20)"
    ended = subprocess.run(["python3", "-c", program], preexec_fn=group.join, check=False)
    assert ended.returncode == -9
    assert group.oom_kills() >= 1


@needs_root
def test_refusals_name_file_and_value(group: Cgroup) -> None:
    if group.layout.of("pids") is None:
        pytest.skip("no pids controller here")
    with pytest.raises(CgroupError, match=r"pids\.max refuses '-5'"):
        group.limit(Limits(pids_max=-5))
    with pytest.raises(CgroupError, match="can't join"):
        group.join(2**22 + 1)
    assert cgroups.Cgroup(f"{group.name}/never").procs() == frozenset()
