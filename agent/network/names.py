"""The files that name things inside a container: /etc/hosts, /etc/hostname, /etc/resolv.conf. Pure text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_address

_HOSTS = (
    "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nff00::0\tip6-mcastprefix\n"
)
_HOSTS += "ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
FALLBACK_DNS = ("8.8.8.8", "8.8.4.4")


def hosts(address: str, hostname: str, more: Iterable[tuple[str, str]] = ()) -> str:
    """`more` are (name, address)."""
    lines = [f"{where}\t{name}\n" for name, where in more]
    if address:
        lines.append(f"{address}\t{hostname}\n")
    return _HOSTS + "".join(lines)


def resolv_conf(host: str, dns: Sequence[str], search: Sequence[str], options: Sequence[str]) -> str:
    """The host's own, without servers that only the host can reach, unless others are given."""
    lines = []
    for line in host.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] not in ("nameserver", "search", "options"):
            continue
        if words[0] == "nameserver" and (dns or _loopback(words[1])):
            continue
        if (words[0] == "search" and search) or (words[0] == "options" and options):
            continue
        lines.append(line)
    lines += [f"nameserver {server}" for server in dns]
    if not any(line.startswith("nameserver") for line in lines):
        lines += [f"nameserver {server}" for server in FALLBACK_DNS]
    if search:
        lines.append(f"search {' '.join(search)}")
    if options:
        lines.append(f"options {' '.join(options)}")
    return "\n".join(lines) + "\n"


def _loopback(text: str) -> bool:
    try:
        return ip_address(text.partition("%")[0]).is_loopback
    except ValueError:
        return True
