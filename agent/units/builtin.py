"""Units that are always active on every machine, since fleetd or the host itself is what they stand for."""

from __future__ import annotations

SERVICES = frozenset(
    {
        "docker.service",
        "docker.socket",
        "fleet.service",
        "fleet.socket",
        "fleetd.service",
        "etcd.service",
        "etcd2.service",
        "etcd-member.service",
        "kvstore.service",
        "systemd-journald.service",
        "systemd-networkd.service",
        "systemd-resolved.service",
        "early-docker.service",
        "flanneld.service",
        "dbus.service",
        "dbus.socket",
    }
)
_TARGETS = """
basic default graphical local-fs local-fs-pre multi-user network network-online network-pre nss-lookup nss-user-lookup
paths remote-fs remote-fs-pre slices sockets swap sysinit system-config time-sync timers
"""
TARGETS = frozenset(f"{name}.target" for name in _TARGETS.split())


def is_builtin(name: str) -> bool:
    """Whether a unit is one that every machine has and that is always active."""
    return name in SERVICES or name in TARGETS
