"""A machine's containers and their Docker API alone, in a network namespace, for tests of clients."""

from __future__ import annotations

import http.client
import io
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
CLIENT_TIMEOUT_S = 90
PATIENCE_S = 60
APPLETS = "sh cat sleep echo true id ls hostname kill tail nc wget httpd mkdir touch seq stty unshare"
requires = [
    pytest.mark.lab,
    pytest.mark.skipif(
        os.geteuid() != 0 or not (shutil.which("runc") and Path("/bin/busybox").exists()),
        reason="needs root, runc and busybox",
    ),
]


def busybox() -> bytes:
    """A root file system, as a tar."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.add("/bin/busybox", "bin/busybox")
        for name in APPLETS.split():
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
    return content.getvalue()


class Machine:
    """The API's process, which may be killed and started again."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.socket = place / "docker.sock"
        self.namespace = f"test-{secrets.token_hex(4)}"
        subprocess.run(["ip", "netns", "add", self.namespace], check=True)
        subprocess.run(["ip", "-n", self.namespace, "link", "set", "lo", "up"], check=True)

    def up(self) -> None:
        """Start it; it answers when this returns."""
        self.socket.unlink(missing_ok=True)
        places = (f"--socket={self.socket}", f"--data-dir={self.place / 'data'}", f"--run-dir={self.place / 'run'}")
        enter = ("nsenter", f"--net=/run/netns/{self.namespace}")
        with (self.place / "api.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*enter, sys.executable, "-m", "agent.dockerapi", *places], stdin=subprocess.DEVNULL, stderr=log
            )
        deadline = time.monotonic() + PATIENCE_S
        while not self.socket.exists():
            assert self.process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)

    def down(self, number: int = signal.SIGTERM) -> None:
        """End it by a signal."""
        self.process.send_signal(number)
        self.process.wait(PATIENCE_S)

    def remove(self) -> None:
        """Remove every container and the machine."""
        self.empty()
        self.down()
        subprocess.run(["ip", "netns", "delete", self.namespace], check=True)

    def empty(self) -> None:
        """Remove every container."""
        if left := self.dock("ps", "-aq").stdout.split():
            self.dock("rm", "-f", *left)

    def env(self) -> Mapping[str, str]:
        """What a client's environment is."""
        return {**os.environ, "DOCKER_HOST": f"unix://{self.socket}", "PATH": f"{BIN}:{os.environ['PATH']}"}

    def dock(self, *words: str, given: bytes | str | None = None) -> subprocess.CompletedProcess[str]:
        """Run our client to its end."""
        return self.client("dock", *words, given=given)

    def docker(self, *words: str, given: bytes | str | None = None) -> subprocess.CompletedProcess[str]:
        """Run the stock client to its end."""
        return self.client("docker", *words, given=given)

    def client(self, *words: str, given: bytes | str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a client to its end."""
        source = given.encode() if isinstance(given, str) else given or b""
        with self.popen(*words) as client:
            try:
                out, err = client.communicate(source, timeout=CLIENT_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                client.kill()
                raise
        return subprocess.CompletedProcess(words, client.returncode, out.decode(), err.decode())

    def popen(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a client with pipes."""
        pipe = subprocess.PIPE
        return subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, env=self.env())

    def import_busybox(self) -> None:
        """Have the image `busybox`."""
        done = self.dock("import", "-", "busybox", given=busybox())
        assert done.returncode == 0, done.stderr


@contextmanager
def running(place: Path) -> Iterator[Machine]:
    """A machine that has the image `busybox`; gone at the end."""
    made = Machine(place)
    made.up()
    made.import_busybox()
    yield made
    made.remove()


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(str(self._path))


def ask(machine: Machine, method: str, path: str, body: object = None) -> http.client.HTTPResponse:
    """A bare request, as any SDK sends it."""
    connection = _Unix(machine.socket)
    text = None if body is None else json.dumps(body)
    connection.request(method, path, text, {"Content-Type": "application/json"})
    return connection.getresponse()
