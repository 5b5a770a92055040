"""Etcd's flags and `ETCD_*` variables, read into the JSON settings of the native server.

It knows names, kinds and defaults; whether values make sense together is the native side's to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Value = str | int | bool | list[str] | list[tuple[str, str]]


class FlagError(ValueError):
    """A flag or variable that can't be understood; the text is a sentence for the user."""


def _text(value: str) -> Value:
    return value


def _number(value: str) -> Value:
    try:
        number = int(value)
    except ValueError:
        raise FlagError(f"'{value}' is not a whole number") from None
    if number < 0:
        raise FlagError(f"'{value}' is negative")
    return number


def _switch(value: str) -> Value:
    words = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}
    try:
        return words[value.lower()]
    except KeyError:
        raise FlagError(f"'{value}' is neither true nor false") from None


def _urls(value: str) -> Value:
    return [part.strip() for part in value.split(",") if part.strip()]


def _members(value: str) -> Value:
    pairs: list[tuple[str, str]] = []
    for part in value.split(","):
        if not part.strip():
            continue
        name, equals, url = part.strip().partition("=")
        if not (name and equals and url):
            raise FlagError(f"'{part}' is not of the form name=url")
        pairs.append((name, url))
    return pairs


@dataclass(frozen=True)
class Flag:
    """One setting: `--name` on the command line, `ETCD_NAME` in the environment."""

    name: str
    read: Callable[[str], Value]
    default: str
    help: str
    served: bool = True
    """False for a flag of etcd's that is accepted and has no effect here."""

    @property
    def variable(self) -> str:
        return "ETCD_" + self.name.upper().replace("-", "_")

    @property
    def key(self) -> str:
        return self.name.replace("-", "_")

    @property
    def is_switch(self) -> bool:
        return self.read is _switch


FLAGS: tuple[Flag, ...] = (
    Flag("name", _text, "default", "Human-readable name for this member."),
    Flag("data-dir", _text, "", "Path to the data directory (default: NAME.etcd)."),
    Flag("listen-client-urls", _urls, "http://localhost:2379", "URLs to listen on for client traffic."),
    Flag("advertise-client-urls", _urls, "http://localhost:2379", "This member's client URLs, told to the others."),
    Flag("listen-peer-urls", _urls, "http://localhost:2380", "URLs to listen on for the other members."),
    Flag("initial-advertise-peer-urls", _urls, "http://localhost:2380", "This member's peer URLs, told to the others."),
    Flag("initial-cluster", _members, "", "Initial members, as name=url,name=url."),
    Flag("initial-cluster-state", _text, "new", "'new' to found a cluster, 'existing' to join one."),
    Flag("initial-cluster-token", _text, "etcd-cluster", "Token that sets clusters of equal members apart."),
    Flag("heartbeat-interval", _number, "100", "Milliseconds between two heartbeats."),
    Flag("election-timeout", _number, "1000", "Milliseconds without a leader before an election."),
    Flag("snapshot-count", _number, "10000", "Log entries kept for members that lag."),
    Flag("quota-backend-bytes", _number, "0", "Size of the state at which writes are refused (0: 2 GiB)."),
    Flag("max-request-bytes", _number, "1572864", "Largest request of a client, in bytes."),
    Flag("max-txn-ops", _number, "128", "Most operations in a transaction."),
    Flag("insecure", _switch, "false", "Listen beyond loopback although there is no TLS (ours, not etcd's)."),
    Flag("peer-url-overrides", _text, "", "File or JSON: member id -> peer URLs that hold for now (ours)."),
    Flag("pre-vote", _switch, "true", "Always on.", served=False),
    Flag("strict-reconfig-check", _switch, "true", "Refuse changes of members that would lose the quorum."),
    Flag("logger", _text, "zap", "Logs go to standard error.", served=False),
    Flag("log-level", _text, "info", "One level.", served=False),
    Flag("log-outputs", _text, "stderr", "Logs go to standard error.", served=False),
    Flag("enable-v2", _switch, "false", "There is no v2 API.", served=False),
)

_BY_NAME = {flag.name: flag for flag in FLAGS}
_DEFAULT_QUOTA_BYTES = 2 * 1024 * 1024 * 1024


def usage() -> str:
    """The text of `--help`."""
    lines = [
        "usage: kvstore [flags]           run one member of the store",
        "       kvstore gateway start     forward a local port to the members",
        "",
        "Each flag may also be given as a variable, --data-dir as ETCD_DATA_DIR.",
        "",
    ]
    lines += [f"  --{flag.name:<28} {flag.help}" for flag in FLAGS if flag.served]
    return "\n".join(lines)


def _command_line(arguments: Sequence[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word in ("-", "--"):
            raise FlagError(f"'{word}' is not a flag; see kvstore --help")
        name, equals, value = word.lstrip("-").partition("=")
        flag = _BY_NAME.get(name)
        if flag is None:
            raise FlagError(f"flag provided but not defined: -{name}; see kvstore --help")
        if not equals:
            if flag.is_switch:
                value = "true"
            elif rest:
                value = rest.pop(0)
            else:
                raise FlagError(f"flag needs an argument: -{name}")
        given[name] = value
    return given


def settings(arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Return the server's settings and warnings; a flag wins over its variable, that over the default."""
    given = _command_line(arguments)
    warnings: list[str] = []
    result: dict[str, Any] = {}
    for flag in FLAGS:
        source = f"--{flag.name}"
        text = given.get(flag.name)
        if text is None and flag.variable in environment:
            source, text = flag.variable, environment[flag.variable]
        explicit = text is not None
        try:
            value = flag.read(flag.default if text is None else text)
        except FlagError as error:
            raise FlagError(f"invalid value for {source}: {error}") from None
        if flag.served:
            result[flag.key] = value
        elif explicit and value != flag.read(flag.default):
            warnings.append(f"{source} has no effect: {flag.help.lower()}")
    known = {flag.variable for flag in FLAGS}
    warnings += [
        f"unrecognized environment variable {name}={environment[name]}"
        for name in sorted(environment)
        if name.startswith("ETCD_") and name not in known
    ]
    if not result["quota_backend_bytes"]:
        result["quota_backend_bytes"] = _DEFAULT_QUOTA_BYTES
    return result, warnings
