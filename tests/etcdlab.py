"""Debian's etcd in a lab's network, in place of the machines' own store."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.conformance.members import etcd_path

SWITCH = "10.77.0.254"
"""The lab's own address in its network; etcd stands there, on none of the machines."""
FIRST_PORT = 12379
COUNT = 3
TIMINGS = ("--heartbeat-interval", "100", "--election-timeout", "600")
WANTED = os.environ.get("LAB_STORE", "") == "etcd"
"""Whether all labs run on it: `make test-on-etcd`."""


def client_urls(count: int = COUNT) -> list[str]:
    """Where `count` members are asked."""
    return [f"http://{SWITCH}:{FIRST_PORT + 2 * number}" for number in range(count)]


@contextmanager
def etcd(lab: str, folder: Path, count: int = COUNT) -> Iterator[None]:
    """Run `count` members in the network of the lab of this name; their data and logs go with them."""
    program = etcd_path()
    assert program is not None, "etcd is not here: run make setup"
    peers = [f"http://127.0.0.1:{FIRST_PORT + 2 * number + 1}" for number in range(count)]
    initial = ",".join(f"e{number}={peer}" for number, peer in enumerate(peers))
    inside = ["ip", "netns", "exec", f"fleet-lab-{lab}"]
    with ExitStack() as ends:
        ends.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.mkdir(exist_ok=True)
        for number, (client, peer) in enumerate(zip(client_urls(count), peers, strict=True)):
            command = [
                *(*inside, program, f"--name=e{number}", f"--data-dir={folder}/e{number}", *TIMINGS),
                *(f"--listen-client-urls={client}", f"--advertise-client-urls={client}"),
                *(
                    f"--listen-peer-urls={peer}",
                    f"--initial-advertise-peer-urls={peer}",
                    f"--initial-cluster={initial}",
                ),
            ]
            with (folder / f"e{number}.log").open("wb") as log:
                process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            ends.callback(process.wait)
            ends.callback(process.kill)
        yield
