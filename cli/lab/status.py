"""What a lab looks like now, seen from outside: stores asked over the lab's network, engines by a machine's socket."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from typing import Any

from cli.lab import switch
from cli.lab.lab import SOCKET, Lab, answers
from cli.lab.machine import CODE_ROOT

CLIENT_PORT = 2379
ASK_TIMEOUT_S = 5.0
ENGINE_TIMEOUT_S = 1.0


def of(lab: Lab) -> dict[str, Any]:
    """Return everything that `fleet-lab status --json` prints."""
    machines: list[dict[str, Any]] = []
    for one in lab.all():
        pid = one.pid()
        machines.append(
            {
                "name": one.name,
                "state": "off" if pid is None else "on",
                "address": one.address,
                "machine_id": one.machine_id(),
                "pid": pid,
                "daemon_pid": one.daemon_pid(),
                "answers": answers(one),
                "client_url": f"http://{one.address}:{CLIENT_PORT}",
                "cut": lab.cuts.get(one.name),
                "log": str(one.log),
            }
        )
    alive = [one for one in machines if one["answers"]]
    by_url = {one["client_url"]: one["name"] for one in machines}
    by_id = {one["machine_id"]: one["name"] for one in machines}
    return {
        "name": lab.name,
        "dir": lab.dir,
        "netns": switch.netns_name(lab.name),
        "machines": machines,
        "store_leader": by_url.get(_store_leader(lab, [one["client_url"] for one in alive])),
        "engine_leader": by_id.get(_engine_leader([one["pid"] for one in alive])),
    }


def table(found: dict[str, Any]) -> str:
    """Lay the status out for a person."""
    rows = [["MACHINE", "STATE", "ADDRESS", "PID", "FLEETD", "CLIENT URL", "CUT", "LEADS"]]
    for one in found["machines"]:
        leads = [what for what in ("store", "engine") if found[f"{what}_leader"] == one["name"]]
        cells = [one[key] for key in ("name", "state", "address", "pid", "daemon_pid", "client_url", "cut")]
        rows.append([str(cell or "-") for cell in (*cells, ",".join(leads))])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _store_leader(lab: Lab, urls: list[str]) -> str:
    if not urls or not switch.exists(lab.name):
        return ""
    command = [sys.executable, "-m", "cli.lab.ask", str(switch.NETNS_DIR / switch.netns_name(lab.name)), *urls]
    try:
        done = subprocess.run(command, capture_output=True, timeout=ASK_TIMEOUT_S, cwd=CODE_ROOT, check=False)
    except subprocess.TimeoutExpired:
        return ""
    return str(done.stdout, "utf-8").strip()


def _engine_leader(pids: list[int]) -> str:
    """Ask the first fleetd that answers, by its own socket."""
    end = time.monotonic() + ASK_TIMEOUT_S
    for pid in pids:
        connection = _Local(f"/proc/{pid}/root/run/{SOCKET}", min(ENGINE_TIMEOUT_S, end - time.monotonic()))
        try:
            connection.request("GET", "/fleetd/v1/status")
            leader = json.loads(connection.getresponse().read())["engineLeader"]
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
            leader = ""
        finally:
            connection.close()
        if leader or time.monotonic() > end - ENGINE_TIMEOUT_S:
            return str(leader)
    return ""


class _Local(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
