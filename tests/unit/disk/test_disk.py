"""The disk that loses power, mounted: it is a file system like others until it is told to lose, tear, fail or wait."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.disk.mounted import Disk, missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())
MANY = 300
TRIES = 6
"""A busy machine may need half a second for a small file; where it is held up, each try shows it."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with Disk(tmp_path) as made:
        yield made


def sync(path: Path) -> None:
    """Sync a file or a directory."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def put(path: Path, data: bytes) -> Path:
    """A file with its name and bytes synced."""
    path.write_bytes(data)
    sync(path)
    sync(path.parent)
    return path


def names(path: Path) -> set[str]:
    return {one.name for one in path.iterdir()}


def mounted(path: Path) -> bool:
    return f" {path} fuse" in Path("/proc/mounts").read_text()


def test_what_was_not_synced_is_gone_and_what_was_is_there(disk: Disk) -> None:
    kept = put(disk.path / "kept", b"synced")
    (disk.path / "new").write_bytes(b"gone")
    with kept.open("r+b") as file:
        file.write(b"XX")
    kept.rename(disk.path / "moved")
    assert (disk.path / "moved").read_bytes() == b"XXnced"
    assert disk.state()["waiting"] == str(len(b"gone") + len(b"XX"))
    disk.lose("all", 1)
    assert names(disk.path) == {"kept"}
    assert kept.read_bytes() == b"synced"


def test_maps_and_writes_of_a_file_agree_and_a_write_with_o_dsync_lasts(disk: Disk) -> None:
    path = put(disk.path / "f", bytes(3 * mmap.PAGESIZE))
    file = os.open(path, os.O_RDWR)
    with mmap.mmap(file, 0, prot=mmap.PROT_READ) as seen, mmap.mmap(file, 0) as changed:
        os.pwrite(file, b"written", mmap.PAGESIZE)
        assert seen[mmap.PAGESIZE :][:7] == b"written"
        changed[:6] = b"mapped"
        assert os.pread(file, 6, 0) == b"mapped"
        changed.flush()
        direct = os.open(path, os.O_WRONLY | os.O_DSYNC)
        os.pwrite(direct, b"lasts", 2 * mmap.PAGESIZE)
        os.close(direct)
    os.close(file)
    disk.lose("all", 1)
    data = path.read_bytes()
    # The sync is of the file, so that it takes along what was written before.
    assert (data[:6], data[mmap.PAGESIZE :][:7], data[2 * mmap.PAGESIZE :][:5]) == (b"mapped", b"written", b"lasts")


def test_a_write_is_torn(disk: Disk) -> None:
    path = put(disk.path / "f", b"a" * 4096)
    found = set()
    for seed in range(40):
        with path.open("r+b") as file:
            file.write(b"b" * 4096)
        disk.lose("scattered" if seed % 2 else "torn", seed)
        data = path.read_bytes()
        pieces = [data[at : at + 512] for at in range(0, 4096, 512)]
        assert set(pieces) <= {b"a" * 512, b"b" * 512}
        found.add(tuple(piece[:1] for piece in pieces))
        put(path, b"a" * 4096)
    assert len(found) > 10


def test_requests_fail_while_they_shall(disk: Disk) -> None:
    file = os.open(put(disk.path / "f", b"x"), os.O_RDWR)
    try:
        disk.fail("write", "ENOSPC")
        assert os.statvfs(disk.path).f_bavail == 0
        with pytest.raises(OSError) as full:
            os.pwrite(file, b"yz", 0)
        os.pwrite(file, b"w", 0)  # it has room for that already
        with pytest.raises(OSError) as no_name:
            (disk.path / "g").touch()
        assert {full.value.errno, no_name.value.errno} == {errno.ENOSPC}
        disk.fail("write", "none")
        os.pwrite(file, b"y", 0)
        disk.fail("sync", "EIO")
        with pytest.raises(OSError) as broken:
            os.fsync(file)
        assert broken.value.errno == errno.EIO
        disk.fail("sync", "none")
        os.fsync(file)
    finally:
        os.close(file)
    assert (disk.path / "f").read_bytes() == b"y"
    disk.lose("all", 1)
    assert (disk.path / "f").read_bytes() == b"x", "a sync makes nothing last whose sync has failed before"
    disk.fail("read", "EIO")
    with pytest.raises(OSError):
        (disk.path / "f").read_bytes()
    disk.fail("read", "none")
    assert (disk.path / "f").read_bytes() == b"x"


def test_a_slow_sync_holds_nobody_else_up(disk: Disk) -> None:
    path = put(disk.path / "f", b"x")
    disk.slow(500)
    held = []
    for _ in range(TRIES):
        began = time.monotonic()
        with ThreadPoolExecutor() as pool:
            syncing = pool.submit(sync, path)
            (disk.path / "g").write_bytes(b"y")
            assert (disk.path / "g").read_bytes() == b"y"
            held.append(syncing.done())
            syncing.result()
        assert time.monotonic() - began >= 0.5
        if not held[-1]:
            break
    assert not held[-1], f"others waited for a sync, {TRIES} times"
    disk.slow(0)


def test_directories_with_many_names(disk: Disk) -> None:
    made = {f"a name of some length {number}" for number in range(MANY)}
    for name in made:
        (disk.path / name).mkdir()
    assert names(disk.path) == made
    sync(disk.path)
    disk.lose("all", 1)
    assert names(disk.path) == made
    for name in made:
        (disk.path / name).rmdir()
    assert names(disk.path) == set()


def test_what_was_synced_is_there_when_it_is_mounted_again(tmp_path: Path) -> None:
    for expected in (set(), {"f"}):
        with Disk(tmp_path) as disk:
            assert names(disk.path) == expected
            put(disk.path / "f", b"x")
            (disk.path / "g").touch()
        assert not mounted(tmp_path / "disk")


def test_it_is_unmounted_when_it_was_killed_or_something_is_open(tmp_path: Path) -> None:
    with Disk(tmp_path) as disk:
        assert mounted(disk.path)
        held = (disk.path / "f").open("wb")
    with pytest.raises(OSError):
        held.write(b"x")
        held.flush()
    assert not mounted(tmp_path / "disk")
    with Disk(tmp_path) as disk:
        assert disk.process is not None
        disk.process.kill()
    assert not mounted(tmp_path / "disk")


def test_a_cut_loses_at_once_what_was_not_synced_and_answers_nothing_until_all_are_killed(tmp_path: Path) -> None:
    with Disk(tmp_path) as disk:
        put(disk.path / "f", b"x")
        (disk.path / "g").touch()
        disk.cut("all", 1)
        waiting = subprocess.Popen(["sync", str(disk.path / "f")])
        time.sleep(0.2)
        assert waiting.poll() is None
        assert disk.process is not None
        waiting.kill()
        disk.process.kill()
        waiting.wait(60)
    with Disk(tmp_path) as disk:
        assert names(disk.path) == {"f"}


def test_commands_that_it_does_not_know_are_refused(disk: Disk) -> None:
    with pytest.raises(OSError, match="no such command"):
        disk.say("explode")
    with pytest.raises(OSError, match="the seed is no number"):
        disk.say("lose all x")
