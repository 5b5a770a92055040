"""What can go wrong when a container is made or started, as the one failure that units and clients know."""

from __future__ import annotations

import logging

from pyroute2.netlink.exceptions import NetlinkError

from agent.cgroups import CgroupError
from agent.containers.launch import LaunchError
from agent.containers.runtime import NoRuntime
from agent.containers.security import SecurityError
from agent.docker_steps import CLIENT_ERROR, ContainerFailure
from agent.images.archive import ArchiveError
from agent.monitor.link import MonitorError
from agent.network.addresses import AddressError
from agent.network.nft import NftError
from agent.network.published import PortError

_TOLD = (
    LaunchError,
    NoRuntime,
    MonitorError,
    PortError,
    AddressError,
    NftError,
    SecurityError,
    ArchiveError,
    CgroupError,
)
"""Their text is a sentence already."""

log = logging.getLogger(__name__)


def of(error: Exception) -> ContainerFailure:
    """The failure that an error is, with docker's exit code for it. What nobody foresaw is logged with its trace."""
    if isinstance(error, ContainerFailure):
        return error
    if isinstance(error, _TOLD):
        return ContainerFailure(str(error), error.code if isinstance(error, LaunchError) else CLIENT_ERROR)
    if isinstance(error, NetlinkError):
        return ContainerFailure(f"the kernel refused the container's network: {error.args[-1]}")
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        reason = error.strerror or str(error) or "it took too long"
        return ContainerFailure(f"{where}{reason}")
    if not isinstance(error, ValueError):
        log.exception("a container's start failed")
    return ContainerFailure(f"the container can't be started as it is asked for: {error or type(error).__name__}")
