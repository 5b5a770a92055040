"""kvctl's flags of TLS and of discovery, with the meaning that they have in etcd's client."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.kvctl.session import BAD_ARGUMENTS, advise
from cli.output import fail

if TYPE_CHECKING:
    import ssl

    from kvstore.tls import Tls

Cacert = Annotated[
    str | None, typer.Option(envvar="ETCDCTL_CACERT", help="Authorities of the members (PEM).", show_default=False)
]
Cert = Annotated[str | None, typer.Option(envvar="ETCDCTL_CERT", help="Certificate to show (PEM).", show_default=False)]
Key = Annotated[str | None, typer.Option(envvar="ETCDCTL_KEY", help="Its key.", show_default=False)]
SkipVerify = Annotated[
    bool,
    typer.Option(
        "--insecure-skip-tls-verify",
        envvar="ETCDCTL_INSECURE_SKIP_TLS_VERIFY",
        help="Believe any member: for trials alone.",
    ),
]
InsecureTransport = Annotated[
    bool,
    typer.Option(envvar="ETCDCTL_INSECURE_TRANSPORT", help="Endpoints without a scheme are spoken to without TLS."),
]
DiscoverySrv = Annotated[
    str,
    typer.Option(
        "-d",
        "--discovery-srv",
        envvar="ETCDCTL_DISCOVERY_SRV",
        help="Domain whose SRV records name the endpoints.",
        show_default=False,
    ),
]
DiscoverySrvName = Annotated[
    str, typer.Option(envvar="ETCDCTL_DISCOVERY_SRV_NAME", help="Name of the service there.", show_default=False)
]
InsecureDiscovery = Annotated[
    bool, typer.Option(envvar="ETCDCTL_INSECURE_DISCOVERY", help="Take endpoints without TLS from there.")
]


def discovered(domain: str, service: str, insecure: bool) -> list[str]:
    """Endpoints that a domain's records name; those without TLS only when `insecure`."""
    from kvstore.discovery import DiscoveryError, endpoints

    try:
        found = endpoints(domain, service)
    except DiscoveryError as error:
        advise(str(error))
        fail(str(error))
    for one in found:
        if not insecure and one.startswith("http://"):
            print(f'ignoring discovered insecure endpoint "{one}"', file=sys.stderr)
    return [one for one in found if insecure or not one.startswith("http://")]


def identity(
    endpoints: Sequence[str],
    files: dict[str, str | None],
    *,
    skip_verify: bool,
    insecure_transport: bool,
    server_name: str,
) -> Tls | None:
    """What connections are secured with; None where nothing asks for that. `files`: of `cacert`, `cert` and `key`."""
    for name, path in files.items():
        if path == "":
            fail(f"empty string is passed to --{name} option", BAD_ARGUMENTS)
        if path and not os.access(path, os.R_OK):
            print(f"--{name} names a file that can't be read here.", file=sys.stderr)
    secure = any(one.startswith(("https://", "unixs:")) for one in endpoints)
    if not (secure or server_name or any(files.values()) or not insecure_transport):
        return None
    from kvstore.tls import Tls

    paths = {name: None if path is None else Path(path) for name, path in files.items()}
    return Tls(insecure_skip_verify=skip_verify, server_name=server_name, **paths)


def words(tls: Tls | None) -> list[str]:
    """The same as kvload's flags."""
    if tls is None:
        return []
    files = (("--cacert", tls.cacert), ("--cert", tls.cert), ("--key", tls.key))
    given = [word for flag, path in files if path for word in (flag, str(path))]
    return [*given, *(["--insecure-skip-tls-verify"] if tls.insecure_skip_verify else [])]


def context(tls: Tls | None) -> ssl.SSLContext:
    """The same for Python's own TLS. Raises OSError."""
    import ssl

    made = ssl.create_default_context(cafile=tls.cacert if tls else None)
    if tls and tls.insecure_skip_verify:
        made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    if tls and tls.cert:
        made.load_cert_chain(tls.cert, tls.key)
    return made
