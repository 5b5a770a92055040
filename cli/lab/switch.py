"""The lab's switch: a bridge in a network namespace of the lab's own, the machines' cables, and cuts between them.

A cut is an nftables rule of the bridge family there. All cuts are written as one table, so that it is what the lab's
record says, whatever happened before.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

NETNS_DIR = Path("/run/netns")
NETNS_PREFIX = "fleet-lab-"
CARD_PREFIX = "02:66:6c:74:00"
"""Five bytes of a machine's MAC address (a locally administered one); the last is the machine's number."""
BRIDGE = "br0"
SUBNET = "10.77.0"
PREFIX = 24
GATEWAY = f"{SUBNET}.254"

Cut = Literal["in", "out", "both"]


class LabError(Exception):
    """Something that the lab was asked for can't be done; the text says what and why."""


def netns_name(lab: str) -> str:
    """Return the name of the lab's own network namespace."""
    return NETNS_PREFIX + lab


def lab_name(netns: str) -> str:
    """Return the lab that a network namespace belongs to, or an empty text."""
    return netns[len(NETNS_PREFIX) :] if netns.startswith(NETNS_PREFIX) else ""


def make(lab: str) -> None:
    """Make the namespace with its bridge."""
    name = netns_name(lab)
    run("ip", "netns", "add", name)
    ip_batch(
        lab,
        "link set lo up\n"
        f"link add {BRIDGE} type bridge forward_delay 0 stp_state 0 mcast_snooping 0\n"
        f"addr add {GATEWAY}/{PREFIX} dev {BRIDGE}\n"
        f"link set {BRIDGE} up\n",
    )


def exists(lab: str) -> bool:
    """Tell whether the switch is there."""
    return (NETNS_DIR / netns_name(lab)).exists()


def remove(lab: str) -> None:
    """Remove the namespace with all that is in it; gone already is no error."""
    if exists(lab):
        run("ip", "netns", "delete", netns_name(lab))


def plug(lab: str, machine: str, pid: int) -> None:
    """Join the network namespace of process `pid` (as `eth0`) to the bridge (as a port with the machine's name).

    A machine keeps its network card over a power loss: with a new one its neighbours would look for the old for half a
    minute, as ARP does.
    """
    unplug(lab, machine)
    card = f"{CARD_PREFIX}:{int(machine[1:]):02x}"
    ip_batch(
        lab,
        f"link add {machine} type veth peer name eth0 address {card} netns {pid}\n"
        f"link set {machine} master {BRIDGE} up\n",
    )


def unplug(lab: str, machine: str) -> None:
    """Take a machine's port away, if it is there still."""
    if machine in ports(lab):
        subprocess.run(["ip", "-n", netns_name(lab), "link", "delete", machine], capture_output=True, check=False)


def ports(lab: str) -> frozenset[str]:
    """Return the machines that have a cable."""
    found = json.loads(run("ip", "-n", netns_name(lab), "-j", "link", "show", "type", "veth") or "[]")
    return frozenset(str(link["ifname"]) for link in found if link)


def cut(lab: str, cuts: Mapping[str, Cut]) -> None:
    """Make exactly these cuts: `in` drops what goes to a machine, `out` what comes from it."""
    run("ip", "netns", "exec", netns_name(lab), "nft", "-f", "-", text=rules(cuts))


def rules(cuts: Mapping[str, Cut]) -> str:
    """Return the nftables script for these cuts; it replaces what was there in one transaction."""
    drops = []
    for machine, direction in sorted(cuts.items()):
        if direction in ("in", "both"):
            drops.append(f'    oifname "{machine}" drop')
        if direction in ("out", "both"):
            drops.append(f'    iifname "{machine}" drop')
    lines = [
        "add table bridge lab",
        "delete table bridge lab",
        "table bridge lab {",
        "  chain cuts {",
        "    type filter hook forward priority 0; policy accept;",
        *drops,
        "  }",
        "}",
    ]
    return "\n".join(lines) + "\n"


def ip_batch(lab: str, commands: str) -> None:
    """Run `ip` commands in the lab's namespace."""
    run("ip", "-n", netns_name(lab), "-batch", "-", text=commands)


def run(*command: str, text: str = "") -> str:
    """Run a program; LabError carries its complaint."""
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise LabError(
            f"the program {command[0]} is missing; install it (packages iproute2, nftables, util-linux)"
        ) from error
    if done.returncode != 0:
        raise LabError(f"`{' '.join(command)}` failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout
