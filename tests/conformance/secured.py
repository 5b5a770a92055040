"""Members whose clients or peers speak TLS, of our store or of Debian's etcd."""

from __future__ import annotations

import http.client
import ssl
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.certificates import Authority, Pair
from tests.conformance.members import OURS, Member, Members, until


@dataclass
class SecureMember(Member):
    """One server process whose URLs may be https."""

    clients: str = "https"
    peers: str = "http"
    trust: ssl.SSLContext | None = None

    @property
    def client_url(self) -> str:
        return f"{self.clients}://127.0.0.1:{self.client_port}"

    @property
    def peer_url(self) -> str:
        return f"{self.peers}://127.0.0.1:{self.peer_port}"

    def fetch(self, path: str) -> str:
        try:
            with urllib.request.urlopen(self.client_url + path, timeout=2, context=self.trust) as answer:
                body: bytes = answer.read()
                return body.decode()
        except (OSError, http.client.HTTPException):
            return ""


def shown(pair: Pair | None = None, authority: Authority | None = None) -> list[str]:
    """Flags of etcdctl: whom to believe, and who it is."""
    words = ["--cacert", str(authority.cert)] if authority else []
    return [*words, "--cert", str(pair.cert), "--key", str(pair.key)] if pair else words


def context(authority: Path | None, pair: Pair | None = None) -> ssl.SSLContext:
    """For Python's own TLS: whom to believe (anybody when None), and who this is."""
    made = ssl.create_default_context(cafile=authority)
    if authority is None:
        made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    if pair is not None:
        made.load_cert_chain(pair.cert, pair.key)
    return made


def clients_flags(pair: Pair, authority: Authority | None = None, *, user: bool = True) -> list[str]:
    """Flags of a member that shows `pair` to clients, and wants theirs of `authority`."""
    words = ["--cert-file", str(pair.cert), "--key-file", str(pair.key)]
    if authority is not None:
        words += ["--trusted-ca-file", str(authority.cert)] + (["--client-cert-auth"] if user else [])
    return words


class SecureMembers(Members):
    """A few members with TLS; `flags` gives each its own."""

    def __init__(
        self,
        directory: Path,
        count: int = 1,
        flags: Callable[[str], Sequence[str]] = lambda _: (),
        *,
        command: tuple[str, ...] = OURS,
        clients: str = "https",
        peers: str = "http",
        trust: ssl.SSLContext | None = None,
        show: Sequence[str] = (),
    ) -> None:
        super().__init__(directory, count, command=command)
        self.show = list(show)
        self.secure = [
            SecureMember(
                one.name,
                directory,
                one.client_port,
                one.peer_port,
                ["--heartbeat-interval=60", "--election-timeout=600", *flags(one.name)],
                command=command,
                clients=clients,
                peers=peers,
                trust=trust,
            )
            for one in self.members
        ]
        self.members = list(self.secure)

    def ctl_command(self, *words: str, at: list[Member] | None = None) -> list[str]:
        program, *rest = super().ctl_command(*words, at=at)
        return [program, *self.show, *rest]

    def said(self, text: str, member: int = 0, **facts: object) -> None:
        """Wait until a line of a member's log says it, in its sentence or its error, with these facts."""
        one = self.members[member]
        facts = {name.replace("_", "-"): value for name, value in facts.items()}

        def told() -> bool:
            return any(
                text in f"{line.get('msg')}: {line.get('error')}" and facts.items() <= line.items()
                for line in one.told()
            )

        until(f"{text!r} with {facts} in {one.log}", told)
