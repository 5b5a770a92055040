"""An etcd v3 member on loopback for client tests: Debian's etcd where there is one, else our own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Cluster:
    """Some members as processes; `endpoints[i]` belongs to `processes[i]`."""

    def __init__(self, folder: Path, count: int = 1) -> None:
        etcd = os.environ.get("ETCD") or shutil.which("etcd")
        command = [etcd] if etcd else [sys.executable, "-m", "kvstore"]
        ports = [(free_port(), free_port()) for _ in range(count)]
        initial = ",".join(f"m{at}=http://127.0.0.1:{peer}" for at, (_, peer) in enumerate(ports))
        self.endpoints = [f"http://127.0.0.1:{client}" for client, _ in ports]
        self.processes: list[subprocess.Popen[bytes]] = []
        for at, (client, peer) in enumerate(ports):
            urls = [f"--{kind}-client-urls=http://127.0.0.1:{client}" for kind in ("listen", "advertise")]
            urls += [
                f"--{kind}=http://127.0.0.1:{peer}" for kind in ("listen-peer-urls", "initial-advertise-peer-urls")
            ]
            flags = [f"--name=m{at}", f"--data-dir={folder}/m{at}", f"--initial-cluster={initial}"]
            flags += ["--heartbeat-interval=50", "--election-timeout=500", *urls]
            log = (folder / f"m{at}.log").open("wb")
            self.processes.append(subprocess.Popen([*command, *flags], stdout=log, stderr=log))
            log.close()
        for client, _ in ports:
            self._await(client)

    @staticmethod
    def _await(port: int) -> None:
        """A member is ready once it is healthy, which needs a leader; an open port alone says little."""
        end = time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                    if json.load(answer)["health"] == "true":
                        return
            except (OSError, ValueError):
                if time.monotonic() > end:
                    raise
            time.sleep(0.05)

    def close(self) -> None:
        """End what was started."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
