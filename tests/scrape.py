"""Run inside a lab machine: print the metrics of its store and of its fleetd, as one JSON object of numbers by name."""

from __future__ import annotations

import json
import socket
import sys
import urllib.request
from http.client import HTTPConnection
from pathlib import Path

STORE = "http://127.0.0.1:2379/metrics"
TIMEOUT_S = 5.0


def fleetd(path: Path = Path("/run/fleet.sock")) -> str:
    """The text of /metrics on fleetd's socket."""
    connection = HTTPConnection("fleet", timeout=TIMEOUT_S)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(TIMEOUT_S)
    connection.sock.connect(str(path))
    connection.request("GET", "/metrics")
    with connection.getresponse() as answer:
        if answer.status != 200:
            raise OSError(f"GET /metrics: {answer.status} {answer.reason}")
        return answer.read().decode()


def main() -> None:
    """Print what both say; the names are the whole words of their lines, labels included."""
    with urllib.request.urlopen(STORE, timeout=TIMEOUT_S) as answer:
        text = answer.read().decode() + fleetd()
    rows = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    json.dump({name: float(value) for name, _, value in rows}, sys.stdout)


if __name__ == "__main__":
    main()
