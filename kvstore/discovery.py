"""What a domain's SRV records name (`--discovery-srv`), as etcd looks for it: endpoints for a client, for a member the
founders of its cluster. It blocks."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

import dns.exception
import dns.name
import dns.resolver
from dns.rdtypes.IN.SRV import SRV

ANSWER_S = 2.0
"""How long a name server may take."""
TRIES = 2
"""How often each is asked."""
NO_NAMESERVER = "127.0.0.1"
"""Asked where the system names none, as Go does."""
Founders = list[tuple[str, str]]
"""Names and peer URLs."""


class DiscoveryError(ValueError):
    """Nothing was found; the text is a sentence."""


def resolver() -> dns.resolver.Resolver:
    """Asks the system's name servers."""
    try:
        found = dns.resolver.Resolver()
    except dns.exception.DNSException:
        found = dns.resolver.Resolver(configure=False)
        found.nameservers = [NO_NAMESERVER]
    found.timeout = ANSWER_S
    found.lifetime = ANSWER_S * TRIES * len(found.nameservers)
    return found


def endpoints(domain: str, service: str = "") -> list[str]:
    """`https://` endpoints of `_etcd-client-ssl._tcp.DOMAIN` and `http://` ones of `_etcd-client._tcp.DOMAIN`, where
    `-SERVICE` follows the name if one is given. Raises DiscoveryError when neither has records."""
    found: list[str] = []
    failed: list[str] = []
    for scheme, kind in (("https", "etcd-client-ssl"), ("http", "etcd-client")):
        try:
            found += [f"{scheme}://{_place(record)}" for record in _lookup(_named(kind, service), domain)]
        except DiscoveryError as error:
            failed.append(str(error))
    if len(failed) == 2:
        raise DiscoveryError(f"dns lookup errors: {failed[0]} and {failed[1]}")
    return found


def founders(domain: str, service: str, name: str, peer_urls: Sequence[str]) -> tuple[Founders, list[str]]:
    """The members that `_etcd-server-ssl._tcp.DOMAIN` (`https://`) and `_etcd-server._tcp.DOMAIN` (`http://`) name, and
    what could not be found. The one with this member's addresses has its `name`, the others have numbers, since their
    names are not known. Raises DiscoveryError when there is nobody, or not this member."""
    found: Founders = []
    failed: list[str] = []
    mine = {_address(url): url for url in peer_urls}
    for scheme, kind in (("https", "etcd-server-ssl"), ("http", "etcd-server")):
        try:
            found += _serving(domain, _named(kind, service), scheme, name, mine)
        except DiscoveryError as error:
            failed.append(f"error querying DNS SRV records for _{_named(kind, service)} {error}")
    if not found:
        raise DiscoveryError("error setting up initial cluster: " + "; ".join(failed))
    if name not in dict(found):
        text = f'error setting up initial cluster: cannot find local etcd member "{name}" in SRV records'
        raise DiscoveryError("; ".join([text, *failed]))
    return found, failed


def own_urls(found: Founders, name: str, peer_urls: Sequence[str]) -> list[str]:
    """How the records write this member's peer URLs, where they name all of them; else as it wrote them itself."""
    named = [url for one, url in found if one == name]
    same = {_address(url) for url in named} == {_address(url) for url in peer_urls}
    return named if same else list(peer_urls)


def _serving(domain: str, service: str, scheme: str, name: str, mine: dict[tuple[str, int], str]) -> Founders:
    found: Founders = []
    why = ""
    for record in _lookup(service, domain):
        url = f"{scheme}://{_place(record)}"
        try:
            own = mine.get(_address(url))
        except DiscoveryError as error:
            why = str(error)
            continue
        if own and urlsplit(own).scheme != scheme:
            why = f"bootstrap at {url} from DNS for {service} has scheme mismatch with expected peer {own}"
            continue
        numbers = sum(one != name for one, _ in found)
        found.append((name if own else str(numbers), url))
    if not found:
        raise DiscoveryError(why)
    return found


def _named(kind: str, service: str) -> str:
    return f"{kind}-{service}" if service else kind


def _place(record: SRV) -> str:
    return f"{record.target.to_text(omit_final_dot=True)}:{record.port}"


def _address(url: str) -> tuple[str, int]:
    """Where a URL's host and port are. Raises DiscoveryError."""
    parts = urlsplit(url)
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise DiscoveryError(f"lookup {parts.hostname}: {error.strerror or error}") from None
    except ValueError as error:
        raise DiscoveryError(f"{url} is no URL: {error}") from None
    # As Go, which takes an IPv4 address where there is one.
    place = min(found, key=lambda one: one[0] != socket.AF_INET)[4]
    return str(place[0]), int(place[1])


def _lookup(service: str, domain: str) -> list[SRV]:
    """A service's records, those first that are to be tried first (RFC 2782). Raises DiscoveryError."""
    name = f"_{service}._tcp.{domain}"
    asked = resolver()
    server = asked.nameservers[0]
    try:
        found = asked.resolve(name, "SRV", search=True).rrset
        if found is not None:
            return [record for record in found.processing_order() if isinstance(record, SRV)]
        why = "no such host"
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        why = "no such host"
    except dns.exception.Timeout:
        why = "i/o timeout"
    except dns.resolver.NoNameservers:
        why = "server misbehaving"
    except (dns.exception.DNSException, UnicodeError) as error:
        why = str(error)
    raise DiscoveryError(f"lookup {name} on {server}:{asked.port}: {why}")
