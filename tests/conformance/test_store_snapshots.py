"""From Debian's etcd to our store and back, by snapshots that both make and take."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kvstore import backup
from tests.conformance.members import OURS, ROOT, Members, etcd_path, etcdctl_path, running, until

pytestmark = pytest.mark.skipif(
    etcdctl_path() is None or etcd_path() is None, reason="etcd is not here: apt-get download etcd-server etcd-client"
)
ETCD = (str(etcd_path()), "--logger=zap", "--log-level=error")
LARGE = "x" * 700_000
KVCTL = (sys.executable, "-m", "cli.kvctl.app")
KVLOAD = str(Path(sys.executable).with_name("kvload"))


def fill(members: Members) -> None:
    """Old values, deletions, transactions of many keys, values of many pages, leases; a compaction amid them."""
    ctl = members.ctl
    lease = ctl("lease", "grant", "4000").split()[1]
    ctl("lease", "grant", "5000")
    for i in range(3):
        ctl("put", "a/old", str(i))
    ctl("put", "a/gone", "1")
    ctl("put", "a/large", stdin=LARGE)
    ctl("put", "a/leased", "1", f"--lease={lease}")
    ctl("del", "a/gone")
    for part in range(4):
        puts = "\n".join(f'put b/{part}/{i:03} "{"v" * (i * 7)}"' for i in range(120))
        ctl("txn", stdin=f"\n{puts}\n\n\n")
    now = revision(members)
    ctl("compact", str(now - 2), "--physical")
    ctl("put", "a/gone", "again")
    ctl("put", "a/empty", "")
    ctl("del", "b/1/", "--prefix")
    ctl("put", "a/leased", "2", f"--lease={lease}")
    ctl("txn", stdin="\nput c/1 1\nput c/2 2\ndel a/old\n\n\n")
    ctl("put", "a/large", stdin=LARGE[1:])


def revision(members: Members) -> int:
    return int(json.loads(members.ctl("get", "x", "-w", "json"))["header"]["revision"])


def seen(members: Members) -> dict[str, Any]:
    """All that a client can tell of the state: keys at each revision that is kept, and leases."""
    now = revision(members)
    found: dict[str, Any] = {"revision": now}
    for at in range(now, 0, -1):
        answer = members.ctl_raw("get", "", "--from-key", f"--rev={at}", "-w", "json")
        if answer.returncode:
            assert "has been compacted" in answer.stderr
            found["compacted"] = at
            break
        found[f"keys at {at}"] = json.loads(answer.stdout).get("kvs", [])
    leases = json.loads(members.ctl("lease", "list", "-w", "json"))["leases"]
    for one in sorted(int(lease["id"]) for lease in leases):
        told = json.loads(members.ctl("lease", "timetolive", f"{one:x}", "--keys", "-w", "json"))
        found[f"lease {one:x}"] = (told["granted-ttl"], told["keys"])
    return found


def etcd_restore(path: Path, members: Members) -> None:
    """With Debian's etcdctl, for every member."""
    for one in members.members:
        words = ["--name", one.name, "--data-dir", str(one.directory / one.name), "--initial-cluster", members.initial]
        members.ctl("snapshot", "restore", str(path), *words, "--initial-advertise-peer-urls", one.peer_url)


def kvctl(*words: str) -> subprocess.CompletedProcess[str]:
    """Our command line."""
    return subprocess.run(
        [*KVCTL, *words], cwd=ROOT, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )


def our_restore(path: Path, members: Members) -> None:
    """With kvctl, for every member."""
    for one in members.members:
        words = ["--name", one.name, "--data-dir", str(one.directory / one.name), "--initial-cluster", members.initial]
        done = kvctl("snapshot", "restore", str(path), *words, "--initial-advertise-peer-urls", one.peer_url)
        assert done.returncode == 0, done.stderr


def hashes(members: Members) -> set[tuple[int, int]]:
    """What members of etcd's make of their keys: hash and compacted revision."""
    answers = json.loads(members.ctl("endpoint", "hashkv", "-w", "json"))
    return {(one["HashKV"]["hash"], one["HashKV"].get("compact_revision", 0)) for one in answers}


def test_our_state_is_served_by_etcd(tmp_path: Path) -> None:
    path = tmp_path / "ours.db"
    with running(Members(tmp_path / "a", 1)) as ours:
        fill(ours)
        ours.ctl("snapshot", "save", str(path))
        before = seen(ours)
        status = ours.ctl("snapshot", "status", str(path), "-w", "json")
        assert json.loads(status)["revision"] == before["revision"]
        assert kvctl("snapshot", "status", str(path), "-w", "json").stdout == status
        simple = kvctl("snapshot", "status", str(path)).stdout
        assert simple == ours.ctl("snapshot", "status", str(path))
        same = tmp_path / "same.db"
        done = kvctl("--endpoints", ours.members[0].client_url, "snapshot", "save", str(same))
        assert (done.stdout, done.stderr) == (f"Snapshot saved at {same}\n", "")
        assert same.read_bytes() == path.read_bytes()
    etcd = Members(tmp_path / "b", 1, command=ETCD)
    etcd_restore(path, etcd)
    with running(etcd):
        assert seen(etcd) == before
        etcd.ctl("put", "next", "1")
        assert revision(etcd) == before["revision"] + 1
        # It changes pages that we wrote: near the end, in the middle, and empties many.
        etcd.ctl("del", "b/2/", "--prefix")
        etcd.ctl("compact", str(revision(etcd)), "--physical")
        etcd.ctl("defrag")
        etcd.ctl("put", "last", "1")
        end = seen(etcd)
        etcd.members[0].stop()
        etcd.start()
        assert seen(etcd) == end


def test_etcds_state_is_served_by_ours(tmp_path: Path) -> None:
    path = tmp_path / "etcd.db"
    with running(Members(tmp_path / "a", 1, command=ETCD)) as etcd:
        fill(etcd)
        etcd.ctl("snapshot", "save", str(path))
        before = seen(etcd)
        status = etcd.ctl("snapshot", "status", str(path), "-w", "json")
        assert kvctl("snapshot", "status", str(path), "-w", "json").stdout == status
        copy = tmp_path / "copy.db"
        copy.write_bytes((tmp_path / "a/m0/member/snap/db").read_bytes())
    refused = kvctl("snapshot", "restore", str(copy), "--data-dir", str(tmp_path / "no"))
    assert refused.returncode == 1 and "--skip-hash-check" in refused.stderr
    done = kvctl("snapshot", "restore", str(copy), "--data-dir", str(tmp_path / "copied"), "--skip-hash-check")
    assert done.returncode == 0, done.stderr
    ours = Members(tmp_path / "b", 1)
    our_restore(path, ours)
    with running(ours):
        assert seen(ours) == before
        ours.ctl("put", "next", "1")
        assert revision(ours) == before["revision"] + 1
        end = seen(ours)
        assert ours.members[0].stop() == 0
        ours.start()
        assert seen(ours) == end


def test_three_members_move_to_ours_and_back(tmp_path: Path) -> None:
    there, back = tmp_path / "there.db", tmp_path / "back.db"
    with running(Members(tmp_path / "a", 3, command=ETCD)) as etcd:
        fill(etcd)
        etcd.ctl("snapshot", "save", str(there), at=[etcd.members[1]])
        before, hashed = seen(etcd), hashes(etcd)
        assert len(hashed) == 1
    ours = Members(tmp_path / "b", 3)
    our_restore(there, ours)
    with running(ours):
        assert seen(ours) == before
        # A member that lost its disk comes back by a snapshot from another.
        lost = ours.members[2]
        lost.stop()
        ids = json.loads(ours.ctl("member", "list", "-w", "json", at=ours.members[:2]))["members"]
        ours.ctl("member", "remove", f"{next(m['ID'] for m in ids if m['name'] == lost.name):x}", at=ours.members[:2])
        add = ("member", "add", "again", f"--peer-urls={lost.peer_url}")
        # Not before the members that are left were connected for 5 s, as in etcd.
        until("addition", lambda: ours.ctl_raw(*add, at=ours.members[:2]).returncode == 0)
        lost.name = "again"
        lost.start(ours.initial, "existing")
        ours.wait()
        # A linearizable read: what it answers from has all that there was.
        ours.ctl("get", "a", at=[lost])
        ours.ctl("snapshot", "save", str(back), at=[lost])
    again = Members(tmp_path / "c", 3, command=ETCD)
    etcd_restore(back, again)
    with running(again):
        assert seen(again) == before
        assert hashes(again) == hashed


def test_an_empty_store_moves_both_ways(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    for first, second in [(OURS, ETCD), (ETCD, OURS)]:
        place = tmp_path / Path(first[0]).name
        with running(Members(place / "a", 1, command=first)) as one:
            one.ctl("snapshot", "save", str(path))
        other = Members(place / "b", 1, command=second)
        (etcd_restore if second == ETCD else our_restore)(path, other)
        with running(other):
            assert revision(other) == 1
            other.ctl("put", "a", "1")
            assert revision(other) == 2


def test_users_and_roles_hold_in_ours_and_back_in_etcd(tmp_path: Path) -> None:
    path, back = tmp_path / "auth.db", tmp_path / "back.db"
    root, alice = ("--user", "root:r"), ("--user", "alice:a")

    def holds(members: Members) -> None:
        """Passwords, roles and permissions are those that were made."""
        assert members.ctl(*root, "user", "list") == "alice\nrobot\nroot\n"
        assert "a/" in members.ctl(*root, "role", "get", "reader")
        assert members.ctl(*alice, "get", "a/1", "--print-value-only") == "1\n"
        for user, said in [(alice, "permission denied"), ((), "user name is empty")]:
            assert said in members.ctl_raw(*user, "get", "b").stderr
        wrong = members.ctl_raw("--user", "alice:b", "get", "a/1")
        assert "invalid user ID or password" in wrong.stderr

    with running(Members(tmp_path / "a", 3, command=ETCD)) as etcd:
        for words in [
            "user add root:r",
            "user grant-role root root",
            "user add alice:a",
            "user add robot --no-password",
            "role add reader",
            "role grant-permission reader --prefix=true read a/",
            "user grant-role alice reader",
            "put a/1 1",
            "put b 1",
            "auth enable",
        ]:
            etcd.ctl(*words.split())
        holds(etcd)
        etcd.ctl(*root, "snapshot", "save", str(path), at=[etcd.members[1]])
    ours = Members(tmp_path / "b", 3)
    our_restore(path, ours)
    with running(ours):
        holds(ours)
        ours.ctl(*root, "user", "add", "bob:b")
        ours.ctl(*root, "user", "delete", "bob")
        assert "user name is empty" in ours.ctl_raw("snapshot", "save", str(back), at=[ours.members[2]]).stderr
        ours.ctl(*root, "snapshot", "save", str(back), at=[ours.members[2]])
    again = Members(tmp_path / "c", 3, command=ETCD)
    etcd_restore(back, again)
    with running(again):
        holds(again)


def test_a_damaged_file_and_bad_settings_leave_nothing(tmp_path: Path) -> None:
    path, target = tmp_path / "etcd.db", tmp_path / "target"
    with running(Members(tmp_path / "a", 1, command=ETCD)) as etcd:
        etcd.ctl("put", "a", "1")
        etcd.ctl("snapshot", "save", str(path))
    whole = path.read_bytes()
    damaged = tmp_path / "damaged.db"
    for at in [*range(0, 80), *range(4096, 4176), *range(8192, len(whole), 97)]:
        data = bytearray(whole)
        data[at] ^= 0x81
        damaged.write_bytes(data)
        with pytest.raises(backup.BackupError, match="is damaged"):
            backup.status(damaged)
        with contextlib.suppress(backup.BackupError):
            backup.status(damaged, skip_hash_check=True)
    # A record that only restoring finds out: the `_` of the first revision's key.
    wrong = tmp_path / "wrong.db"
    mark = whole.index((2).to_bytes(8, "big") + b"_") + 8
    wrong.write_bytes(whole[:mark] + b"-" + whole[mark + 1 :])
    for words, said in [
        ([str(damaged)], "is damaged"),
        ([str(wrong), "--skip-hash-check"], "this is no revision"),
        ([str(tmp_path / "none.db")], "No such file"),
        ([str(path), "--name", "a", "--initial-cluster", "b=http://127.0.0.1:1"], "couldn't find local name"),
        ([str(path), "--initial-advertise-peer-urls", "nonsense"], "nonsense"),
    ]:
        done = kvctl("snapshot", "restore", *words, "--data-dir", str(target))
        assert done.returncode == 1 and said in done.stderr, done.stderr
        assert not target.exists()
    target.mkdir()
    done = kvctl("snapshot", "restore", str(wrong), "--data-dir", str(target), "--skip-hash-check")
    assert done.returncode == 1 and "this is no revision" in done.stderr, done.stderr
    assert not list(target.iterdir())
    (target / "precious").touch()
    done = kvctl("snapshot", "restore", str(path), "--data-dir", str(target))
    assert done.returncode == 1 and "is not empty" in done.stderr
    assert [one.name for one in target.iterdir()] == ["precious"]


def test_clients_that_stall_are_few_and_hold_no_member_up(tmp_path: Path) -> None:
    with running(Members(tmp_path / "a", 1)) as ours, contextlib.ExitStack() as stack:
        large(ours)
        clients = []
        for i in range(4):
            command = ours.ctl_command("snapshot", "save", str(tmp_path / f"{i}.db"))
            clients.append(stack.enter_context(subprocess.Popen(command, stderr=subprocess.DEVNULL)))
            stack.callback(clients[-1].kill)
            part = tmp_path / f"{i}.db.part"
            until("bytes of the snapshot", lambda part=part: part.exists() and part.stat().st_size)
            clients[-1].send_signal(signal.SIGSTOP)
        refused = ours.ctl_raw("snapshot", "save", str(tmp_path / "fifth.db"))
        assert "etcdserver: too many requests" in refused.stderr
        assert ours.members[0].stop() == 0
        for client in clients:
            client.send_signal(signal.SIGCONT)
            assert client.wait(60) != 0
    assert not list(tmp_path.glob("*.db*"))


def test_a_terminal_sees_how_far_it_is(tmp_path: Path) -> None:
    mine, theirs = pty.openpty()
    with running(Members(tmp_path / "a", 1)) as ours, os.fdopen(mine, "rb", buffering=0) as terminal:
        large(ours)
        url = ours.members[0].client_url
        words = ["--endpoints", url, "snapshot", "save", str(tmp_path / "large.db")]
        with subprocess.Popen([*KVCTL, *words], cwd=ROOT, stderr=theirs, stdout=subprocess.PIPE) as client:
            os.close(theirs)
            shown = b""
            with contextlib.suppress(OSError):  # The end of a terminal.
                while part := terminal.read(65_536):
                    shown += part
            assert client.wait(60) == 0
    assert shown.count(b"\r[") > 10 and b"] 100% 6" in shown
    assert shown.endswith(b"\r\x1b[K")


def large(members: Members) -> None:
    """More than sockets and queues hold."""
    words = ["put", "--endpoints", members.members[0].client_url, "--clients", "16", "--total", "300"]
    words += ["--val-size", "200000", "--key-space", "300"]
    subprocess.run([KVLOAD, *words], stdout=subprocess.DEVNULL, check=True)


def test_a_snapshot_while_writes_go_on_is_of_one_moment(tmp_path: Path) -> None:
    path = tmp_path / "busy.db"
    with running(Members(tmp_path / "a", 1)) as ours:
        url = ours.members[0].client_url
        load = [KVLOAD, "put", "--endpoints", url, "--clients", "16", "--duration", "600"]
        with subprocess.Popen(load, stdout=subprocess.DEVNULL) as process:
            until("a put of the load", lambda: revision(ours) > 1)
            sums = set()
            for _ in range(3):
                ours.ctl("snapshot", "save", str(path))
                sums.add(hashlib.sha256(path.read_bytes()).hexdigest())
            process.terminate()
        assert len(sums) == 3
    again = Members(tmp_path / "b", 1)
    our_restore(path, again)
    with running(again):
        kvs = json.loads(again.ctl("get", "", "--from-key", "-w", "json")).get("kvs", [])
        # Each put is a revision of its own, and the first is 2: none is missing.
        assert sum(kv["version"] for kv in kvs) == revision(again) - 1
