"""Single values of unit files: spans of time, sizes, signals, limits, statuses. Each reader raises BadValue.

Source: systemd.time(7), systemd.exec(5), systemd.kill(5), systemd.resource-control(5).
"""

from __future__ import annotations

import math
import re
import signal as signals
from collections.abc import Iterable

from agent.units.errors import BadValue

INFINITY = math.inf
_TRUE = frozenset({"1", "yes", "y", "true", "t", "on"})
_FALSE = frozenset({"0", "no", "n", "false", "f", "off"})
_SPANS = {
    "usec us μs": 1e-6,
    "msec ms": 1e-3,
    "seconds second sec s": 1,
    "minutes minute min m": 60,
    "hours hour hr h": 3600,
    "days day d": 86400,
    "weeks week w": 604800,
    "months month M": 2629800,
    "years year y": 31557600,
}
_SECONDS = {name: factor for names, factor in _SPANS.items() for name in names.split()}
_PART = re.compile(r"\s*(\d+(?:\.\d*)?)\s*([A-Za-zμ]*)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGTPE]?)(?:i?B)?", re.IGNORECASE)
_SYSEXITS = """
USAGE DATAERR NOINPUT NOUSER NOHOST UNAVAILABLE SOFTWARE OSERR OSFILE CANTCREAT IOERR TEMPFAIL PROTOCOL NOPERM CONFIG
"""
_STATUS_NAMES = {"SUCCESS": 0, "FAILURE": 1, "NOTFOUND": 127} | {
    name: 64 + index for index, name in enumerate(_SYSEXITS.split())
}


def boolean(value: str) -> bool:
    """yes/no, true/false, on/off, 1/0."""
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise BadValue(f"'{value}' is neither yes nor no")


def seconds(value: str) -> float:
    """A span such as `90`, `5min 20s`, `250ms` or `infinity`, in seconds."""
    if value.strip() == "infinity":
        return INFINITY
    total = 0.0
    index = 0
    if not value.strip():
        raise BadValue("A span of time is missing")
    while index < len(value.rstrip()):
        match = _PART.match(value, index)
        unit = match[2] if match else ""
        if match is None or (unit and unit not in _SECONDS):
            raise BadValue(f"'{value}' is not a span of time (such as 90, 5min 20s, 250ms)", index)
        total += float(match[1]) * _SECONDS.get(unit, 1)
        index = match.end()
    return total


def size(value: str) -> float:
    """Bytes such as `512M` (base 1024) or `infinity`."""
    if value.strip() == "infinity":
        return INFINITY
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise BadValue(f"'{value}' is not a size (such as 512M, 1G, infinity)")
    return float(int(float(match[1]) * 1024 ** " KMGTPE".index(match[2].upper() or " ")))


def memory(value: str) -> float:
    """A memory limit: a size, or a percentage of the machine's memory as a negative share (-0.25 for 25%)."""
    if value.endswith("%"):
        return -percent(value) / 100
    number = size(value)
    if number == 0:
        raise BadValue("A memory limit of 0 would let nothing run")
    return number


def percent(value: str) -> float:
    """`150%` as 150.0."""
    try:
        number = float(value.removesuffix("%"))
    except ValueError:
        number = -1.0
    if not value.endswith("%") or not 0 < number < math.inf:
        raise BadValue(f"'{value}' is not a percentage (such as 50%)")
    return number


def integer(value: str, low: int = 0, high: int = 2**63 - 1) -> int:
    """A whole number in a range."""
    try:
        number = int(value, 0) if value[:2].lower() == "0x" else int(value)
    except ValueError:
        raise BadValue(f"'{value}' is not a whole number") from None
    if not low <= number <= high:
        raise BadValue(f"{number} is not between {low} and {high}")
    return number


def count_limit(value: str) -> float:
    """TasksMax=: a number, a percentage as a negative share, or infinity."""
    if value.strip() == "infinity":
        return INFINITY
    return -percent(value) / 100 if value.endswith("%") else float(integer(value, 1))


def signal(value: str) -> int:
    """A signal by name (SIGTERM or TERM) or number."""
    name = value.upper() if value.upper().startswith("SIG") else f"SIG{value.upper()}"
    if name in signals.Signals.__members__:
        return int(signals.Signals[name])
    if value.isdigit() and 1 <= int(value) <= 64:
        return int(value)
    match = re.fullmatch(r"SIG(RTMIN|RTMAX)([+-]\d+)?", name)
    if match:
        number = int(getattr(signals, f"SIG{match[1]}")) + int(match[2] or 0)
        if int(signals.SIGRTMIN) <= number <= int(signals.SIGRTMAX):
            return number
    raise BadValue(f"'{value}' is not a signal (such as SIGTERM or 15)")


def statuses(words: Iterable[str]) -> tuple[frozenset[int], frozenset[int]]:
    """Exit codes and signals of SuccessExitStatus= and its like: `1 2 SIGHUP TEMPFAIL`."""
    codes: set[int] = set()
    sigs: set[int] = set()
    for word in words:
        if word.isdigit():
            codes.add(integer(word, 0, 255))
        elif word.upper().removeprefix("EX_") in _STATUS_NAMES:
            codes.add(_STATUS_NAMES[word.upper().removeprefix("EX_")])
        else:
            try:
                sigs.add(signal(word))
            except BadValue:
                raise BadValue(f"'{word}' is neither an exit status (0 to 255) nor a signal") from None
    return frozenset(codes), frozenset(sigs)


_TIME_LIMITS = frozenset({"CPU", "RTTIME"})
_PLAIN_LIMITS = frozenset({"NOFILE", "NPROC", "LOCKS", "SIGPENDING", "NICE", "RTPRIO"})
_RLIMITS = "CPU FSIZE DATA STACK CORE RSS NOFILE AS NPROC MEMLOCK LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME"
LIMIT_NAMES = tuple(_RLIMITS.split())


def resource_limit(name: str, value: str) -> tuple[int, int]:
    """`soft:hard` or one value for both; -1 is unlimited. CPU in seconds, RTTIME in microseconds, the rest by unit."""

    def one(text: str) -> int:
        if text == "infinity":
            return -1
        if name in _TIME_LIMITS:
            if text.isdigit():
                return int(text)
            span = seconds(text)
            return math.ceil(span) if name == "CPU" else math.ceil(span * 1e6)
        return integer(text) if name in _PLAIN_LIMITS else int(size(text))

    soft, colon, hard = value.partition(":")
    pair = (one(soft), one(hard if colon else soft))
    if pair[1] != -1 and (pair[0] == -1 or pair[0] > pair[1]):
        raise BadValue(f"The soft limit of '{value}' is above the hard one")
    return pair


def mode(value: str) -> int:
    """An octal mode such as 0022."""
    if not re.fullmatch(r"0?[0-7]{1,4}", value):
        raise BadValue(f"'{value}' is not a mode (such as 0022)")
    return int(value, 8)


def absolute(value: str) -> str:
    """An absolute path."""
    if not value.startswith("/"):
        raise BadValue(f"'{value}' is not an absolute path")
    return value
