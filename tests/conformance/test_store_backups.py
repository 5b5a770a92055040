"""Backups on a schedule: etcd takes them, they end and begin again with what the directory lets happen."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstore import backup
from tests.conformance.members import Member, Members, etcdctl_path, until

pytestmark = pytest.mark.skipif(etcdctl_path() is None, reason="etcdctl is not here: run make setup")


def flags(directory: Path) -> list[str]:
    return [f"--backup-dir={directory}", "--backup-interval=1s", "--backup-keep=2"]


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Members]:
    members = Members(tmp_path, 1, flags(tmp_path / "backups"))
    yield members
    members.close()


def backups(directory: Path) -> list[Path]:
    return sorted(directory.glob("backup-*.db"))


def test_the_newest_are_kept_and_etcd_takes_them(alone: Members, tmp_path: Path) -> None:
    directory = tmp_path / "backups"
    directory.mkdir()
    foreign = [directory / name for name in ("backup-other.db", "notes.txt")]
    for path in foreign:
        path.write_text("mine")
    alone.start()
    for number in range(100):
        alone.ctl("put", f"k{number:02}", f"v{number}")
    own = until("two backups with all of it", lambda: newest(directory, 101))
    first = own[0]
    until("the oldest gone", lambda: not first.exists())
    assert len(own) == 2
    assert all(path.read_text() == "mine" for path in foreign)
    log = alone.members[0].told()
    written = [line for line in log if line["msg"] == "a backup is written and checked"]
    assert (str(first), 101) in {(line["path"], line["revision"]) for line in written}

    alone.members[0].stop()
    kept = [path for path in backups(directory) if path not in foreign]
    assert len(kept) == 2
    last = kept[-1]
    assert last.stat().st_mode & 0o777 == 0o600
    program = etcdctl_path()
    assert program is not None
    told = subprocess.run(
        [program, "snapshot", "status", str(last), "-w", "json"],
        env={"ETCDCTL_API": "3"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(told.stdout)["revision"] == 101
    again = Member("again", tmp_path, alone.members[0].client_port, alone.members[0].peer_port)
    backup.restore(
        last,
        name=again.name,
        data_dir=tmp_path / again.name,
        initial_cluster=[(again.name, again.peer_url)],
        initial_advertise_peer_urls=[again.peer_url],
    )
    alone.members = [again]
    alone.start()
    assert len(alone.ctl("get", "k", "--prefix", "--keys-only").split()) == 100


def newest(directory: Path, revision: int) -> list[Path]:
    own = [path for path in backups(directory) if path.name.endswith(f"-r{revision}.db")]
    return own if len(own) == 2 else []


def gone(directory: Path, files: set[Path]) -> bool:
    """Remove a directory; whether these files went with it, though the member may write there meanwhile."""
    shutil.rmtree(directory, ignore_errors=True)
    return not any(path.exists() for path in files)


def test_what_fails_is_told_and_tried_again_while_the_member_serves(alone: Members, tmp_path: Path) -> None:
    directory = tmp_path / "backups"
    directory.write_text("no directory")
    alone.start()
    log = alone.members[0].log
    until("a failure", lambda: log.read_text().count("a backup failed and is tried again") >= 2)
    failures = [line for line in alone.members[0].told() if "a backup failed" in line["msg"]]
    assert {line["last-good"] for line in failures[:2]} == {"none"} and all(line["error"] for line in failures)
    alone.ctl("put", "k", "v")
    directory.unlink()
    until("a backup", lambda: backups(directory))
    before = set(backups(directory))
    until("its end", lambda: gone(directory, before))
    until("another", lambda: set(backups(directory)) - before)
    assert alone.ctl("get", "k", "--print-value-only").strip() == "v"
