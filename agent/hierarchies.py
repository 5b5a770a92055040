"""Which hierarchies of control groups this host has: v1's, the unified one, or both. It reads; it makes no group."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

DEFAULT_ROOT = "fleet"
"""Below which our groups are, where no other place is told."""

Mode = Literal["v1", "hybrid", "v2"]


@dataclass(frozen=True)
class Hierarchy:
    """One mounted tree of control groups."""

    controllers: frozenset[str]
    mount: Path
    """Where its root is visible here."""
    version: Literal[1, 2]
    own: str
    """This process's position below the mount, without a leading slash; empty at its root."""


@dataclass(frozen=True)
class Layout:
    """All hierarchies of a host, as one process sees them."""

    hierarchies: tuple[Hierarchy, ...]

    @property
    def mode(self) -> Mode:
        """`v2` when only the unified tree is there, `hybrid` with both, else `v1`."""
        versions = {hierarchy.version for hierarchy in self.hierarchies}
        return "hybrid" if len(versions) == 2 else "v2" if versions == {2} else "v1"

    def of(self, controller: str) -> Hierarchy | None:
        """Return the hierarchy that has this controller, or None."""
        return next((one for one in self.hierarchies if controller in one.controllers), None)


def detect(mountinfo: str | None = None, cgroup: str | None = None) -> Layout:
    """Return the layout of this host, or of the given texts of /proc/self/mountinfo and /proc/self/cgroup."""
    mountinfo = Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo
    cgroup = Path("/proc/self/cgroup").read_text() if cgroup is None else cgroup
    positions: dict[frozenset[str], str] = {}
    for line in cgroup.splitlines():
        _, names, position = line.split(":", 2)
        positions[frozenset(names.split(",")) if names else frozenset()] = position
    found: dict[frozenset[str], Hierarchy] = {}
    for line in mountinfo.splitlines():
        before, _, behind = line.partition(" - ")
        kind, _, options = behind.split(" ", 2)
        if kind not in ("cgroup", "cgroup2"):
            continue
        root, mount = before.split(" ")[3:5]
        mount_path = Path(_unescape(mount))
        controllers: frozenset[str] = frozenset()
        if kind == "cgroup":
            wanted = set(options.split(","))
            controllers = next((names for names in positions if names and names <= wanted), frozenset())
            if not controllers:
                continue
        if controllers in found:
            continue
        own = _below(positions.get(controllers, "/"), _unescape(root))
        found[controllers] = Hierarchy(controllers, mount_path, 1 if kind == "cgroup" else 2, own)
    return Layout(tuple(_name_unified(one) for one in found.values()))


def own_root(layout: Layout, name: str = DEFAULT_ROOT) -> str:
    """Return a root below this process's own position where that is the same everywhere, else `name` at the top.

    A unified host with a delegated scope is the case that needs it: there nothing may be written above.
    """
    positions = {one.own for one in layout.hierarchies}
    own = positions.pop() if len(positions) == 1 else ""
    return f"{own}/{name}".strip("/")


def _name_unified(hierarchy: Hierarchy) -> Hierarchy:
    if hierarchy.version == 1:
        return hierarchy
    controllers: frozenset[str] = frozenset()
    with contextlib.suppress(OSError):
        controllers = frozenset((hierarchy.mount / "cgroup.controllers").read_text().split())
    return Hierarchy(controllers, hierarchy.mount, 2, hierarchy.own)


def _below(position: str, root: str) -> str:
    """Turn a position in the hierarchy into one below a mount that shows `root` of it."""
    if root in ("/", ""):
        return position.strip("/")
    if position == root or position.startswith(root + "/"):
        return position[len(root) :].strip("/")
    return ""


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
