"""What members tell at /metrics, for the verbs that look at figures."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping

from cli.kvctl import security
from cli.kvctl.session import flags

TIMEOUT_S = 2.0
LARGEST_BYTES = 16 << 20
REQUESTS = "grpc_server_handled_total"
RESIDENT = "process_resident_memory_bytes"


class MetricsError(Exception):
    """A member tells no figures; the text is a sentence's end."""


def fetch(endpoint: str) -> str:
    """A member's page. Raises MetricsError."""
    scheme = "http" if flags.tls is None else "https"
    url = (endpoint if "://" in endpoint else f"{scheme}://{endpoint}") + "/metrics"
    try:
        trust = security.context(flags.tls) if url.startswith("https:") else None
        with urllib.request.urlopen(url, timeout=TIMEOUT_S, context=trust) as answer:
            page: bytes = answer.read(LARGEST_BYTES)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise MetricsError(f"{url}: {reason}") from error
    return page.decode(errors="replace")


def figures(page: str) -> Mapping[str, float]:
    """The figures by name, those that differ in labels alone summed up."""
    found: dict[str, float] = {}
    for line in page.splitlines():
        name, _, value = line.rpartition(" ")
        if line.startswith("#") or not name:
            continue
        name = name.partition("{")[0]
        try:
            found[name] = found.get(name, 0.0) + float(value)
        except ValueError:
            continue
    return found
