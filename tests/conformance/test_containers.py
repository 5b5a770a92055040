"""What a container is: what it may do and use, what it sees, how it is reached. Real runc, real kernel limits."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import tarfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent import cgroups
from agent.hierarchies import detect
from tests.conformance.containers import PATIENCE_S, Machine, busybox, requires
from tests.lab import until

pytestmark = [*requires, pytest.mark.usefixtures("nothing_left")]
OUTSIDE, MACHINE = "10.99.0.2", "10.99.0.1"
FETCH = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=20).read().decode(), end='')"
ANSWER = (
    "import socket as s; l = s.create_server(('0.0.0.0', 7)); print('ready', flush=True); c, a = l.accept();"
    " c.sendall(a[0].encode()); c.close()"
)


def inspect(machine: Machine, name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(machine.dock("inspect", name).stdout)
    return found[0]


def written(container: str, controller: str, file: str) -> str:
    """What the host's control group of a container says."""
    layout = detect()
    hierarchy = layout.of(controller)
    assert hierarchy is not None
    group = cgroups.Cgroup(f"fleet-containers/{container}", layout=layout, root="")
    at = group.paths()[layout.hierarchies.index(hierarchy)]
    return (at / file).read_text().strip()


def test_a_container_has_dockers_capabilities_a_filter_and_names_of_its_own(machine: Machine) -> None:
    script = "cat /proc/1/status /etc/hosts /etc/resolv.conf; hostname; echo pid $$; touch /sys/x"
    made = machine.dock("run", "--name", "one", "-h", "box", "--add-host", "db:10.0.0.9", "busybox", "sh", "-c", script)
    out = made.stdout.replace("\t", " ")
    assert "CapEff: 00000000a80425fb" in out and "CapBnd: 00000000a80425fb" in out
    assert "Seccomp: 2" in out
    assert "127.0.0.1 localhost" in out and "10.0.0.9 db" in out and " box\n" in out
    assert "nameserver " in out
    assert "\nbox\npid 1\n" in out
    assert "touch: /sys/x" in made.stderr
    for words, wanted in (
        (("--cap-drop", "ALL", "--cap-add", "NET_ADMIN"), "CapEff:\t0000000000001000"),
        (("--privileged",), "Seccomp:\t0"),
        (("--security-opt", "seccomp=unconfined"), "Seccomp:\t0"),
        (("--security-opt", "no-new-privileges"), "NoNewPrivs:\t1"),
    ):
        assert wanted in machine.dock("run", "--rm", *words, "busybox", "cat", "/proc/1/status").stdout
    refused = machine.dock("run", "--rm", "busybox", "unshare", "-m", "true")
    assert refused.returncode != 0 and "not permitted" in refused.stderr


def test_memory_processes_and_processor_are_limited(machine: Machine) -> None:
    eat = ("busybox", "sh", "-c", "exec tail /dev/zero")
    done = machine.dock("run", "--name", "eater", "-m", "16m", *eat)
    assert done.returncode == 137, done.stderr
    state = inspect(machine, "eater")["State"]
    assert (state["OOMKilled"], state["ExitCode"]) == (True, 137)
    limits = ("-m", "64m", "--cpus", "0.5", "--pids-limit", "5", "--cpu-shares", "512")
    container = machine.dock("run", "-d", *limits, "busybox", "sleep", "100").stdout.strip()
    version = {name: found.version for name in ("memory", "cpu", "pids") if (found := detect().of(name))}
    for controller, files in {
        "memory": {1: ("memory.limit_in_bytes", "67108864"), 2: ("memory.max", "67108864")},
        "cpu": {1: ("cpu.cfs_quota_us", "50000"), 2: ("cpu.max", "50000 100000")},
        "pids": {1: ("pids.max", "5"), 2: ("pids.max", "5")},
    }.items():
        file, value = files[version[controller]]
        assert written(container, controller, file) == value
    forks = "for i in 1 2 3 4 5 6 7 8; do sleep 3 & done; echo all"
    crowd = machine.dock("run", "--rm", "--pids-limit", "4", "busybox", "sh", "-c", forks)
    assert crowd.returncode != 0 and "fork" in crowd.stderr


def test_no_control_group_stays(machine: Machine) -> None:
    container = machine.dock("run", "-d", "--cgroup-parent", "", "busybox", "sleep", "100").stdout.strip()
    group = cgroups.Cgroup(f"fleet-containers/{container}", root="")
    assert group.exists()
    machine.dock("rm", "-f", container)
    assert not group.exists()


def test_volumes_are_shared_guarded_made_and_kept(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        *options, script = words
        return machine.dock("run", "--rm", *options, "busybox", "sh", "-c", script)

    assert run("-v", f"{tmp_path}/given:/v", "echo 1 > /v/a").returncode == 0
    assert (tmp_path / "given/a").read_text() == "1\n"
    read_only = run("-v", f"{tmp_path}/given:/v:ro", "cat /v/a; echo 2 > /v/a")
    assert (read_only.stdout, read_only.returncode) == ("1\n", 1) and "Read-only file system" in read_only.stderr
    assert run("-v", f"{tmp_path}/made/deep:/v", "touch /v/b").returncode == 0
    assert (tmp_path / "made/deep/b").exists()
    missing = run("--mount", f"type=bind,src={tmp_path}/no,dst=/v", "true")
    assert missing.returncode == 125 and f"bind source path does not exist: {tmp_path}/no" in missing.stderr
    assert run("-v", "data:/v", "echo kept > /v/c").returncode == 0
    assert run("-v", "data:/v", "cat /v/c").stdout == "kept\n"
    assert run("-v", "/v", "--tmpfs", "/t", "touch /v/x /t/y && echo done").stdout == "done\n"
    assert [path.name for path in (machine.place / "data/volumes").glob("[!.]*")] == ["data"]
    until("nothing of the unnamed one", lambda: not [*(machine.place / "data/volumes").glob(".removed/*")], 60)
    sealed = run("--read-only", "--tmpfs", "/t", "touch /t/x && touch /x")
    assert sealed.returncode == 1 and "Read-only file system" in sealed.stderr


@pytest.fixture
def outside(machine: Machine) -> Iterator[str]:
    """Another machine on a wire: the name of its network namespace."""
    name = f"{machine.namespace}-out"
    ip = ("ip", "-n", machine.namespace)
    for words in (
        ("ip", "netns", "add", name),
        (*ip, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", name),
        (*ip, "addr", "add", f"{MACHINE}/24", "dev", "wire"),
        (*ip, "link", "set", "wire", "up"),
        ("ip", "-n", name, "addr", "add", f"{OUTSIDE}/24", "dev", "wire"),
        ("ip", "-n", name, "link", "set", "wire", "up"),
    ):
        subprocess.run(words, check=True)
    yield name
    subprocess.run(("ip", "netns", "delete", name), check=True)


def fetch(namespace: str, url: str) -> str:
    words = ("nsenter", f"--net=/run/netns/{namespace}", sys.executable, "-c", FETCH, url)
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False).stdout


def test_ports_are_published_and_what_leaves_has_the_machines_address(machine: Machine, outside: str) -> None:
    serve = ("busybox", "sh", "-c", "mkdir -p /w; echo $NAME > /w/index.html; exec httpd -f -p 80 -h /w")
    machine.dock("run", "-d", "--name", "web", "-e", "NAME=web", "-p", "8081:80", *serve)
    machine.dock("run", "-d", "--name", "any", "-e", "NAME=any", "--expose", "80", "-P", *serve)
    port = inspect(machine, "any")["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]
    address = inspect(machine, "web")["NetworkSettings"]["IPAddress"]
    until("an answer", lambda: fetch(outside, f"http://{MACHINE}:8081/") == "web\n", 60)
    until("an answer", lambda: fetch(outside, f"http://{MACHINE}:{port}/") == "any\n", 60)
    assert fetch(machine.namespace, "http://127.0.0.1:8081/") == "web\n"
    neighbour = machine.dock("run", "--rm", "busybox", "wget", "-qO-", f"http://{address}/", f"http://{MACHINE}:8081/")
    assert neighbour.stdout == "web\nweb\n", neighbour.stderr
    taken = machine.dock("run", "--rm", "-p", "8081:80", "busybox", "true")
    assert taken.returncode == 125 and "Bind for 0.0.0.0:8081 failed: port is already allocated" in taken.stderr
    words = ("nsenter", f"--net=/run/netns/{outside}", sys.executable, "-c", ANSWER)
    with subprocess.Popen(words, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None and server.stdout.readline() == b"ready\n"
        seen = machine.dock("run", "--rm", "busybox", "sh", "-c", f"nc {OUTSIDE} 7 < /dev/null")
    assert seen.stdout == MACHINE
    machine.dock("rm", "-f", "web")
    assert fetch(outside, f"http://{MACHINE}:8081/") == ""


def test_a_terminal_has_the_clients_size_and_follows_it(machine: Machine) -> None:
    # The size comes beside the start, and later beside what is typed: it is waited for.
    at = "until [ \"$(stty size)\" = '{}' ]; do sleep 0.05; done; stty size"
    script = f"{at.format('33 101')}; read line; {at.format('44 90')}; echo got $line; test -t 1; exit $?"
    outer, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
    client = subprocess.Popen(
        ("dock", "run", "-it", "--name", "term", "busybox", "sh", "-c", script),
        stdin=inner, stdout=inner, stderr=inner, env=machine.env(), start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(inner)
    seen = _until_seen(outer, b"33 101")
    fcntl.ioctl(outer, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 90, 0, 0))
    client.send_signal(signal.SIGWINCH)
    os.write(outer, b"word\r")
    seen += _until_seen(outer, b"got word")
    assert b"44 90" in seen
    assert client.wait(60) == 0
    outer, inner = pty.openpty()
    words = ("dock", "run", "-it", "--name", "left", "busybox", "sh", "-c", "echo here; exec sleep 100")
    client = subprocess.Popen(words, stdin=inner, stdout=inner, stderr=inner, env=machine.env())
    _until_seen(outer, b"here")
    os.write(outer, b"\x10")
    os.write(outer, b"\x11")
    assert client.wait(60) == 0
    assert inspect(machine, "left")["State"]["Running"]
    refused = machine.dock("run", "-it", "--rm", "busybox", "true")
    assert (refused.returncode, refused.stderr) == (1, "dock: the input device is not a TTY\n")


def _until_seen(handle: int, wanted: bytes) -> bytes:
    seen, end = b"", time.monotonic() + PATIENCE_S
    while wanted not in seen:
        assert select.select([handle], [], [], max(0.0, end - time.monotonic()))[0], f"no {wanted!r} in {seen!r}"
        piece = os.read(handle, 4096)
        assert piece, seen
        seen += piece
    return seen


def test_images_are_loaded_used_and_guarded(machine: Machine) -> None:
    layer = busybox()
    more = io.BytesIO()
    with tarfile.open(fileobj=more, mode="w") as made:
        made.addfile(tarfile.TarInfo("bin/.wh.wget"))
        made.addfile(tarfile.TarInfo("hello"))
    layers = {"base/layer.tar": layer, "top/layer.tar": more.getvalue()}
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["echo"], "Cmd": ["from", "the image"], "Env": ["A=b"], "WorkingDir": "/work"},
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in layers.values()],
        },
    }
    manifest = [{"Config": "config.json", "RepoTags": ["saved:2"], "Layers": list(layers)}]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for name, data in {
            "config.json": json.dumps(config).encode(),
            "manifest.json": json.dumps(manifest).encode(),
            **layers,
        }.items():
            item = tarfile.TarInfo(name)
            item.size = len(data)
            made.addfile(item, io.BytesIO(data))
    assert machine.dock("load", given=out.getvalue()).stdout == "Loaded image: saved:2\n"
    assert machine.dock("run", "--name", "user", "saved:2").stdout == "from the image\n"
    script = "pwd; echo $A; ls /bin/wget; ls /hello"
    done = machine.dock("run", "--rm", "--entrypoint", "sh", "saved:2", "-c", script)
    assert done.stdout == "/work\nb\n/hello\n" and "/bin/wget: No such file" in done.stderr
    found = inspect(machine, "saved:2")
    assert (found["RepoTags"], found["Config"]["Env"]) == (["saved:2"], ["A=b"])
    used = machine.dock("rmi", "saved:2")
    assert used.returncode == 1 and "conflict" in used.stderr and "is using" in used.stderr
    machine.dock("rm", "user")
    assert machine.dock("rmi", "saved:2").stdout.startswith("Untagged: saved:2\nDeleted: sha256:")
    gone = machine.dock("rmi", "saved:2")
    assert (gone.returncode, gone.stderr) == (1, "Error response from daemon: No such image: saved:2\n")


def test_only_what_goes_at_its_end_is_not_synced_and_it_starts_after_a_failure(machine: Machine) -> None:
    for words, wanted in ((("--rm",), True), ((), False)):
        found = machine.dock("run", *words, "busybox", "sh", "-c", "grep ' / ' /proc/mounts; touch /x")
        assert ("volatile" in found.stdout) == wanted, found.stderr
    made = machine.dock("create", "--rm", "busybox", "true").stdout.strip()
    mark = machine.place / "data" / "containers" / made / "work" / "work" / "incompat" / "volatile"
    mark.mkdir(parents=True)  # as a power loss leaves it
    assert machine.dock("start", "-a", made).returncode == 0
