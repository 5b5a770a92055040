"""Etcd's flags and `ETCD_*` variables, read into the JSON settings of the native server.

It knows names, kinds and defaults; whether values make sense together is the native side's to say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kvstore.config_file import ConfigFileError
from kvstore.config_file import read as read_file
from kvstore.idle_flags import IDLE
from kvstore.old_flags import OLD_FLAGS, OLD_GATES
from kvstore.tls_flags import CERTIFICATES

Value = str | int | bool | list[str] | list[tuple[str, str]]


_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}


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
    if number > LARGEST:
        raise FlagError(f"'{value}' is larger than {LARGEST}")
    return number


def _switch(value: str) -> Value:
    words = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}
    try:
        return words[value.lower()]
    except KeyError:
        raise FlagError(f"'{value}' is neither true nor false") from None


def _duration(value: str) -> Value:
    return _milliseconds(value)


def _milliseconds(value: str) -> int:
    """Of a duration as Go writes it, such as 10m, 1h30m or 1.5s."""
    parts = _DURATION.findall(value)
    if not parts or "".join(number + unit for number, unit in parts) != value:
        raise FlagError(f"'{value}' is no duration such as 10m, 1h30m or 500ms")
    milliseconds = round(sum(float(number) * _UNITS[unit] for number, unit in parts))
    if not 0 < milliseconds <= LARGEST:
        raise FlagError(f"'{value}' is not between 1ms and {LARGEST}ms")
    return milliseconds


def _retention(mode: str, text: str) -> int:
    """Milliseconds of history for the mode `periodic`, where a bare number is of hours; else revisions. 0 is none."""
    periodic = mode == "periodic"
    if re.fullmatch(r"\+?\d+", text):
        amount = int(text) * (_UNITS["h"] if periodic else 1)
    else:
        # Go's durations are numbers of nanoseconds, and etcd takes one for revisions too.
        amount = _milliseconds(text) * (1 if periodic else 1_000_000)
    if amount > LARGEST:
        raise FlagError(f"'{text}' is larger than {LARGEST}")
    return amount


def _pause(value: str) -> Value:
    """Milliseconds of a duration, of which there may be none."""
    return 0 if re.fullmatch(r"0(ms|s|m|h)?", value) else _milliseconds(value)


def _gates(value: str) -> Value:
    """Feature gates that are switched: `Name=true,Name=false`."""
    switched: list[tuple[str, str]] = []
    for part in value.split(","):
        if not part.strip():
            continue
        name, equals, text = part.strip().partition("=")
        if not equals:
            raise FlagError(f"missing bool value for {name}")
        if name not in GATES:
            raise FlagError(f"unrecognized feature gate: {name}")
        switched.append((name, str(_switch(text)).lower()))
    return switched


def _urls(value: str) -> Value:
    return [part.strip() for part in value.split(",") if part.strip()]


def members(value: str) -> list[tuple[str, str]]:
    """Names and peer URLs of `name=url,name=url`. Raises FlagError."""
    pairs: list[tuple[str, str]] = []
    for part in value.split(","):
        if not part.strip():
            continue
        name, equals, url = part.strip().partition("=")
        if not (name and equals and url):
            raise FlagError(f"'{part}' is not of the form name=url")
        pairs.append((name, url))
    return pairs


def _members(value: str) -> Value:
    return members(value)


@dataclass(frozen=True)
class Flag:
    """One setting: `--name` on the command line, `ETCD_NAME` in the environment."""

    name: str
    read: Callable[[str], Value]
    default: str
    help: str
    served: bool = True
    """False for a flag of etcd's that is accepted and has no effect here."""
    place: str = ""
    """`section.key` of a setting that is not one of the server's own."""

    @property
    def variable(self) -> str:
        return "ETCD_" + self.name.upper().replace("-", "_")

    @property
    def key(self) -> str:
        return self.place.partition(".")[2] or self.name.replace("-", "_")

    @property
    def is_switch(self) -> bool:
        return self.read is _switch


_KINDS: Mapping[str, Callable[[str], Value]] = {
    "text": _text,
    "switch": _switch,
    "list": _urls,
    "number": _number,
    "pause": _pause,
}

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
    Flag("discovery-srv", _text, "", "Domain whose SRV records name the initial members."),
    Flag("discovery-srv-name", _text, "", "Name of the service there, as in _etcd-server-NAME._tcp."),
    Flag("force-new-cluster", _switch, "false", "Go on with this member's data as a cluster of one."),
    Flag("heartbeat-interval", _number, "100", "Milliseconds between two heartbeats."),
    Flag("election-timeout", _number, "1000", "Milliseconds without a leader before an election."),
    Flag("snapshot-count", _number, "10000", "Log entries kept for members that lag."),
    Flag("quota-backend-bytes", _number, "0", "Size of the state at which writes are refused (0: 2 GiB)."),
    Flag("auto-compaction-mode", _text, "periodic", "The retention is a time ('periodic') or a number ('revision')."),
    Flag("auto-compaction-retention", _text, "0", "History kept: hours, a duration, or revisions (0: all of it)."),
    Flag("backup-dir", _text, "", "Directory for snapshots of this member, on a schedule (ours)."),
    Flag("backup-interval", _duration, "1h", "How often one is made (ours)."),
    Flag("backup-keep", _number, "24", "How many are kept (ours)."),
    Flag("corrupt-check-time", _pause, "0s", "How often the leader compares what the members hold (0s: never)."),
    Flag(
        "compact-hash-check-time", _pause, "1m", "How often the leader compares hashes that were noted at compactions."
    ),
    Flag("lease-checkpoint-interval", _duration, "5m", "How often it is noted what is left of a lease (ours)."),
    Flag(
        "feature-gates",
        _gates,
        "",
        "Features to switch, as Name=true,Name=false: InitialCorruptCheck, CompactHashCheck, LeaseCheckpoint.",
    ),
    Flag("max-request-bytes", _number, "1572864", "Largest request of a client, in bytes."),
    Flag("max-txn-ops", _number, "128", "Most operations in a transaction."),
    Flag("insecure", _switch, "false", "Listen beyond loopback without TLS and client certificates (ours)."),
    Flag("peer-url-overrides", _text, "", "File or JSON: member id -> peer URLs that hold for now (ours)."),
    Flag("watch-progress-notify-interval", _duration, "10m", "How often progress is told to a watch that wants it."),
    Flag("auth-token", _text, "simple", "Tokens: 'simple', or 'jwt,sign-method=RS256,pub-key=F,priv-key=F,ttl=5m'."),
    Flag("auth-token-ttl", _number, "300", "Seconds that a simple token lives after it was used last."),
    Flag("bcrypt-cost", _number, "10", "Cost of passwords' hashes, 4 to 31; each step doubles it."),
    Flag("strict-reconfig-check", _switch, "true", "Refuse changes of members that would lose the quorum."),
    *(
        Flag(name, _KINDS[kind], "false" if kind == "switch" else "", text, place=place)
        for name, kind, text, place in CERTIFICATES
    ),
    Flag("cipher-suites", _urls, "", "Suites of TLS 1.2 that may be spoken, by Go's names."),
    Flag("tls-min-version", _text, "TLS1.2", "TLS1.2 or TLS1.3."),
    Flag("tls-max-version", _text, "", "TLS1.2 or TLS1.3."),
    Flag("self-signed-cert-validity", _number, "1", "Years that a certificate of a member's own making is good."),
    Flag("metrics", _text, "basic", "'extensive' measures also how long calls take."),
    Flag("cors", _urls, "*", "Origins whose pages may ask by HTTP, with commas ('*': all).", place="http.origins"),
    Flag("host-whitelist", _urls, "*", "Names of this host in HTTP without TLS ('*': all).", place="http.hosts"),
    Flag("logger", _text, "zap", "The shape of the log's lines: 'zap'.", place="log.logger"),
    Flag("log-level", _text, "info", "debug, info, warn, error, panic or fatal.", place="log.level"),
    Flag("log-format", _text, "json", "Lines of 'json', or of text for people: 'console'.", place="log.format"),
    Flag(
        "log-outputs", _urls, "default", "'stderr' ('default'), 'stdout', or files, with commas.", place="log.outputs"
    ),
    Flag("warning-apply-duration", _pause, "100ms", "What takes longer is logged.", place="slow.apply"),
    Flag(
        "warning-unary-request-duration", _pause, "300ms", "Requests that take longer are logged.", place="slow.unary"
    ),
    Flag("enable-log-rotation", _switch, "false", "Not known here: refused.", place="log.rotation"),
    Flag("config-file", _text, "", "File of settings in YAML, as etcd's; then flags and variables are ignored."),
    *(Flag(name, _KINDS[kind], default, text, served=False) for name, kind, default, text in IDLE),
)

GATES = {
    **dict.fromkeys(("InitialCorruptCheck", "CompactHashCheck"), False),
    **dict.fromkeys(("LeaseCheckpoint", "LeaseCheckpointPersist"), True),
    **dict.fromkeys(("SetMemberLocalAddr", "PriorityRequest", "StopGRPCServiceOnDefrag"), False),
    **dict.fromkeys(("TxnModeWriteWithSharedBuffer", "FastLeaseKeepAlive"), True),
}
"""Gates and whether they are open: as with etcd, but for checkpoints of leases, which are taken here. Only
`InitialCorruptCheck`, `CompactHashCheck` and `LeaseCheckpoint` have an effect."""
LARGEST = 2**63 - 1
_BY_NAME = {flag.name: flag for flag in FLAGS}
_BY_NAME |= {old: replace(_BY_NAME[name], name=old) for old, name in OLD_FLAGS.items()}
_BY_NAME |= {old: Flag(old, _switch, "false", "") for old in OLD_GATES}
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
    lines += [f"  --{flag.name:<31} {flag.help}" for flag in FLAGS if flag.served]
    lines += ["", "example: kvstore --name m1 --data-dir /var/lib/m1.etcd"]
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


def _from_file(path: str) -> dict[str, tuple[str, str]]:
    """What a configuration file says of each flag: where, and the value's text. Raises FlagError."""

    def is_known(name: str) -> bool:
        return name in _BY_NAME and name != "config-file"

    def is_duration(name: str) -> bool:
        return _BY_NAME[name].read in (_duration, _pause)

    try:
        return read_file(Path(path), is_known, is_duration)
    except ConfigFileError as error:
        raise FlagError(str(error)) from None


def _given(arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """What was said of each flag, where and in which words, and warnings: in the configuration file, if there is one,
    else on the command line and in variables."""
    line = _command_line(arguments)
    path = line.pop("config-file", "") or environment.get("ETCD_CONFIG_FILE", "")
    if path:
        ignored = [f"--{name}" for name in line]
        said = [flag for flag in _BY_NAME.values() if flag.variable in environment]
        ignored += [flag.variable for flag in said if flag.name != "config-file"]
        warnings = [f"{', '.join(ignored)} ignored: {path} holds all settings"] if ignored else []
        return _from_file(path), warnings
    known = {flag.variable for flag in _BY_NAME.values()}
    warnings = [
        f"unrecognized environment variable {name}={environment[name]}"
        for name in sorted(environment)
        if name.startswith("ETCD_") and name not in known
    ]
    said = [flag for flag in _BY_NAME.values() if flag.variable in environment]
    given = {flag.name: (flag.variable, environment[flag.variable]) for flag in said}
    given |= {name: (f"--{name}", text) for name, text in line.items()}
    return given, warnings


def _under_new_names(given: Mapping[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """What was said of flags and gates by the names that they had before, of those that they have now; a new name goes
    before an old one. Raises FlagError where a gate is switched by both, as etcd 3.6 does."""
    renamed = {OLD_FLAGS[name]: value for name, value in given.items() if name in OLD_FLAGS}
    renamed |= {name: value for name, value in given.items() if name not in OLD_FLAGS and name not in OLD_GATES}
    place, gates = renamed.get("feature-gates", ("", ""))
    for name, (source, text) in given.items():
        if gate := OLD_GATES.get(name):
            if any(part.strip().partition("=")[0] == gate for part in gates.split(",")):
                raise FlagError(f"{source} and {gate} in {place} are one switch: say it in {place} alone")
            # What makes no sense is told of the name that was used.
            switched = f"{gate}={_read(_BY_NAME[name], source, text)}"
            place, gates = place or source, ",".join(filter(None, (gates, switched)))
    return renamed | {"feature-gates": (place, gates)} if gates else renamed


def _read(flag: Flag, source: str, text: str) -> Value:
    try:
        return flag.read(text)
    except FlagError as error:
        raise FlagError(f"invalid value for {source}: {error}") from None


def settings(arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Return the server's settings and warnings; a flag wins over its variable, that over the default.

    Where there is a configuration file it alone counts, as with etcd. Raises FlagError.
    """
    said, unheard = _given(arguments, environment)
    given = _under_new_names(said)
    warnings: list[str] = []
    result: dict[str, Any] = {}
    for flag in FLAGS:
        source, text = given.get(flag.name, (f"--{flag.name}", flag.default))
        value = _read(flag, source, text)
        if flag.served:
            section = flag.place.partition(".")[0]
            (result.setdefault(section, {}) if section else result)[flag.key] = value
        elif flag.name in given and value != flag.read(flag.default):
            warnings.append(f"{source} has no effect: {flag.help.lower()}")
    warnings += unheard
    if result["discovery_srv"] and result["initial_cluster"]:
        raise FlagError(
            'multiple discovery or bootstrap flags are set. Choose one of "initial-cluster", "discovery-endpoints" or '
            '"discovery-srv"'
        )
    del result["config_file"]
    gates = dict(result.pop("feature_gates"))
    result["initial_corrupt_check"] = gates.pop("InitialCorruptCheck", "") == "true"
    result["compact_hash_check"] = gates.pop("CompactHashCheck", "") == "true"
    if gates.pop("LeaseCheckpoint", "") == "false":
        result["lease_checkpoint_interval"] = 0
    warnings += [
        f"--feature-gates={name}={value} has no effect"
        for name, value in gates.items()
        if value != str(GATES[name]).lower()
    ]
    for name in ("backup-interval", "backup-keep"):
        if name in given and not result["backup_dir"]:
            raise FlagError(f"{given[name][0]} needs --backup-dir: say where backups go, or leave it out")
    retention = _BY_NAME["auto-compaction-retention"]
    try:
        result[retention.key] = _retention(result["auto_compaction_mode"], result[retention.key])
    except FlagError as error:
        source, _ = given.get(retention.name, (f"--{retention.name}", ""))
        raise FlagError(f"invalid value for {source}: {error}") from None
    if not result["quota_backend_bytes"]:
        result["quota_backend_bytes"] = _DEFAULT_QUOTA_BYTES
    return result, warnings
