"""The stock docker client on our Docker API, in a network namespace of its own."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(
        os.geteuid() != 0 or not (shutil.which("docker") and shutil.which("runc") and Path("/bin/busybox").exists()),
        reason="needs root, docker's client, runc and busybox",
    ),
]


class Machine:
    """The API's process, which may be killed and started again."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.namespace = f"test-{os.getpid()}"
        subprocess.run(["ip", "netns", "add", self.namespace], check=True)

    def up(self) -> None:
        socket = self.place / "docker.sock"
        socket.unlink(missing_ok=True)
        places = (f"--socket={socket}", f"--data-dir={self.place / 'data'}", f"--run-dir={self.place / 'run'}")
        enter = ("nsenter", f"--net=/run/netns/{self.namespace}")
        self.process = subprocess.Popen([*enter, sys.executable, "-m", "agent.dockerapi", *places])
        deadline = time.monotonic() + 15
        while not socket.exists():
            assert self.process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)

    def down(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(10)

    def docker(self, *words: str, given: bytes | str | None = None) -> subprocess.CompletedProcess[str]:
        source = given.encode() if isinstance(given, str) else given or b""
        env = {**os.environ, "DOCKER_HOST": f"unix://{self.place / 'docker.sock'}"}
        with subprocess.Popen(
            ["docker", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
        ) as client:
            try:
                out, err = client.communicate(source, timeout=20)
            except subprocess.TimeoutExpired:
                client.kill()
                raise
        return subprocess.CompletedProcess(words, client.returncode, out.decode(), err.decode())


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    made.up()
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.add("/bin/busybox", "bin/busybox")
        for name in ("sh", "cat", "sleep", "echo"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
    done = made.docker("import", "-", "busybox", given=content.getvalue())
    assert done.returncode == 0, done.stderr
    yield made
    for container in made.docker("ps", "-aq").stdout.split():
        made.docker("rm", "-f", container)
    made.down()
    subprocess.run(["ip", "netns", "delete", made.namespace], check=True)


def test_run_ends_as_the_program_does(machine: Machine) -> None:
    done = machine.docker("run", "--name", "one", "busybox", "sh", "-c", "echo a; echo b >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "a\n", "b\n")
    logs = machine.docker("logs", "one")
    assert (logs.stdout, logs.stderr) == ("a\n", "b\n")
    assert "Exited (7)" in machine.docker("ps", "-a").stdout
    assert machine.docker("rm", "one").returncode == 0
    assert machine.docker("ps", "-aq").stdout == ""


def test_input_reaches_the_program_and_its_end_too(machine: Machine) -> None:
    done = machine.docker("run", "-i", "--rm", "busybox", "cat", given="some lines\n" * 1000)
    assert (done.returncode, done.stdout) == (0, "some lines\n" * 1000)


def test_what_can_not_run_says_so_and_leaves_nothing(machine: Machine) -> None:
    done = machine.docker("run", "--rm", "busybox", "no-such-program")
    assert done.returncode == 127
    assert "no-such-program" in done.stderr
    assert machine.docker("run", "--rm", "nowhere/nothing").returncode == 125
    assert machine.docker("logs", "nobody").stderr.strip() == "Error response from daemon: No such container: nobody"
    assert machine.docker("ps", "-aq").stdout == ""


def test_a_container_outlives_its_api(machine: Machine) -> None:
    assert machine.docker("run", "-d", "--name", "long", "busybox", "sleep", "300").returncode == 0
    machine.down(signal.SIGKILL)
    machine.up()
    assert "Up " in machine.docker("ps").stdout
    assert machine.docker("kill", "long").returncode == 0
    assert machine.docker("wait", "long").stdout == "137\n"
