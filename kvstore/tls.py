"""What a client's connections are secured with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Tls:
    """Given to a client, endpoints without a scheme are dialed with TLS; `https://` ones always are, `http://` never.

    The files are read again when they change. A wrong one is a ValueError when the client is made.
    """

    cacert: Path | None = None
    """Authorities that are believed (PEM); the system's when left out."""
    cert: Path | None = None
    """What the client shows of itself (PEM), with `key`; nothing when left out."""
    key: Path | None = None
    insecure_skip_verify: bool = False
    """Believe whoever answers: for trials alone."""
    server_name: str = ""
    """The name that a server's certificate must be for; the endpoint's host when empty."""
