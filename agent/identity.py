"""Who this machine is (machine-id) and which of its boots this is.

A boot is the kernel's boot id and the start time of pid 1: in a container or a simulated machine the kernel's boot id
alone would make a reboot look like none.
"""

from __future__ import annotations

import os
import re
import uuid
from pathlib import Path

from agent import durable
from agent.units.names import Host

SYSTEM_FILE = Path("/etc/machine-id")
_FORM = re.compile(r"[0-9a-f]{32}")


class IdentityError(Exception):
    """A machine-id file can't be used; the text names it and what is expected."""


def _read(path: Path) -> str | None:
    try:
        text = path.read_text().strip().replace("-", "").lower()
    except OSError:
        return None
    return text if _FORM.fullmatch(text) else None


def machine_id(named: Path | None, data_dir: Path) -> str:
    """The 32 hex digits of machine-id(5): from the named file, else the system's, else made and kept in `data_dir`.

    Raises IdentityError when the named file does not hold one.
    """
    if named is not None:
        found = _read(named)
        if found is None:
            raise IdentityError(f"{named} does not hold a machine-id (32 hexadecimal digits; 'uuidgen' makes one)")
        return found
    kept = data_dir / "machine-id"
    if (found := _read(SYSTEM_FILE) or _read(kept)) is not None:
        return found
    made = uuid.uuid4().hex
    durable.replace(kept, f"{made}\n".encode())
    return made


def boot() -> str:
    """This boot's identity."""
    kernel = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    started = Path("/proc/1/stat").read_text().rpartition(")")[2].split()[19]
    return f"{kernel}-{started}"


def this_host(machine_id: str, boot_id: str) -> Host:
    """What the specifiers of unit files stand for on this machine."""
    kernel = os.uname()
    return Host(kernel.nodename, machine_id, boot_id, kernel.release)
