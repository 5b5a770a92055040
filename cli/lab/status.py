"""What a lab looks like now, gathered from outside its machines: the store is asked from the switch's namespace."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from cli.lab import switch
from cli.lab.lab import Lab, answers
from cli.lab.machine import CODE_ROOT

CLIENT_PORT = 2379
ASK_TIMEOUT_S = 10.0


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
    store = _ask_stores(lab, [one["client_url"] for one in machines if one["state"] == "on"])
    by_url = {one["client_url"]: one["name"] for one in machines}
    by_id = {one["machine_id"]: one["name"] for one in machines}
    engine = store.get("engine")
    return {
        "name": lab.name,
        "dir": lab.dir,
        "netns": switch.netns_name(lab.name),
        "machines": machines,
        "store_leader": by_url.get(store.get("leader", "")),
        "engine_leader": by_id.get(engine, engine),
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


def _ask_stores(lab: Lab, urls: list[str]) -> dict[str, Any]:
    """Ask in a process of its own, since entering a network namespace is for good."""
    if not urls or not switch.exists(lab.name):
        return {}
    command = [sys.executable, "-m", "cli.lab.ask", str(switch.NETNS_DIR / switch.netns_name(lab.name)), *urls]
    try:
        done = subprocess.run(
            command, capture_output=True, check=False, timeout=ASK_TIMEOUT_S, cwd=Path(CODE_ROOT), text=True
        )
        answer = json.loads(done.stdout or "{}")
    except (subprocess.TimeoutExpired, ValueError):
        return {}
    return answer if isinstance(answer, dict) else {}
