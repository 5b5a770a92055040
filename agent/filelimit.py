"""The limit of open files: as high as it may be for fleetd, which has several for each unit; as it was for payloads.

A payload is not to inherit a raised one: select(2) can't have files beyond 1024.
"""

from __future__ import annotations

import contextlib
import resource

INHERITED = resource.getrlimit(resource.RLIMIT_NOFILE)
"""(soft, hard) as this process was given them."""


def raise_limit() -> None:
    """Let this process open as many files as its hard limit says."""
    _, hard = INHERITED
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def give_back(pid: int) -> None:
    """Give a child the limit that this process was given."""
    with contextlib.suppress(OSError):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, INHERITED)
