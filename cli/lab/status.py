"""What a lab looks like now, seen from outside: stores asked over the lab's network, engines by a machine's socket."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

from cli import output
from cli.lab import switch
from cli.lab.lab import API_TIMEOUT_S, Lab, answers, ask, waits_for
from cli.lab.machine import CODE_ROOT

CLIENT_PORT = 2379
ASK_TIMEOUT_S = 5.0


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
                "answers": (there := answers(one)),
                "waits_for": waits_for(one) if there else "",
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
    rows = []
    for one in found["machines"]:
        leads = [what for what in ("store", "engine") if found[f"{what}_leader"] == one["name"]]
        cells = [one[key] for key in ("name", "state", "address", "pid", "daemon_pid", "client_url", "cut")]
        rows.append((*cells, ",".join(leads)))
    headers = ("MACHINE", "STATE", "ADDRESS", "PID", "FLEETD", "CLIENT URL", "CUT", "LEADS")
    notes = [f"{one['name']}: {one['waits_for']}" for one in found["machines"] if one["waits_for"]]
    return "\n".join([output.table(headers, rows), *notes])


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
        status = ask(pid, "/fleetd/v1/status", min(API_TIMEOUT_S, end - time.monotonic())) or {}
        leader = status.get("engineLeader", "")
        if leader or time.monotonic() > end - API_TIMEOUT_S:
            return str(leader)
    return ""
