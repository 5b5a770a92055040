"""What every command starts from: the endpoint that was chosen, and names as people write them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase

from cli.fleetctl.output import Failure
from fleetd.api.client import DEFAULT_ENDPOINT, ApiClient, ClientError

# As `agent.units.names` has them, whose import would take a list command 4 ms.
KINDS = (
    ".service",
    ".socket",
    ".target",
    ".timer",
    ".path",
    ".mount",
    ".automount",
    ".slice",
    ".scope",
    ".device",
    ".swap",
)
_chosen = {"endpoint": DEFAULT_ENDPOINT}


def choose_endpoint(endpoint: str) -> None:
    """Remember the global flag."""
    _chosen["endpoint"] = endpoint


def client() -> ApiClient:
    """A client of the endpoint that was chosen."""
    return ApiClient(_chosen["endpoint"])


def unit_name(word: str) -> str:
    """The unit that a word on the command line names: a path's last part, `.service` added when it has no kind."""
    name = word.rsplit("/", 1)[-1]
    if not name:
        raise Failure(f"{word!r} names no unit: say for example hello.service.")
    return name if name.endswith(KINDS) else f"{name}.service"


def matching(incomplete: str) -> list[str]:
    """The cluster's units that begin so, for the shell's completion; none where there is no answer."""
    try:
        return [name for name in client().names() if name.startswith(incomplete)]
    except ClientError:
        return []


def is_glob(word: str) -> bool:
    """Whether a word stands for all units that it matches."""
    return any(char in word for char in "*?[")


def known_units(api: ApiClient, words: Sequence[str]) -> list[str]:
    """The cluster's units that words name or match, each once. A glob that matches none is an error."""
    names: dict[str, None] = {}
    everything: list[str] | None = None
    for word in words:
        if not is_glob(word):
            names[unit_name(word)] = None
            continue
        if everything is None:
            everything = api.names()
        pattern = unit_name(word) if not word.endswith("*") else word
        found = [name for name in everything if fnmatchcase(name, pattern)]
        if not found:
            raise Failure(f"No unit of the cluster matches '{word}'.")
        names |= dict.fromkeys(found)
    return list(names)


def addresses(api: ApiClient) -> dict[str, str]:
    """The addresses of the living machines, by id."""
    return {machine["id"]: machine["primaryIP"] for machine in api.machines()}


def tell_alarm(api: ApiClient) -> None:
    """Say on stderr why units of lost machines do not move now; a list that looks wrong is explained by it."""
    try:
        text = api.alarm()
    except ClientError:
        return  # a plain fleet API has no status, and the list that was asked for is there
    if text:
        print(f"fleetctl: alarm: {text}", file=sys.stderr)
