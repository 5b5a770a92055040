"""Unit names: their parts, templates and instances, escaping, and the specifiers that stand for them.

Source: systemd.unit(5), "UNIT FILE LOAD PATH", "SPECIFIERS" and systemd-escape(1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from agent.units.errors import BadValue, UnitError

KINDS = frozenset(
    {"service", "socket", "device", "mount", "automount", "swap", "target", "path", "timer", "slice", "scope"}
)
NAME_LIMIT = 255
_STEM = re.compile(r"[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.@\\-]*)?")
_ESCAPED = re.compile(r"\\x([0-9a-fA-F]{2})")


@dataclass(frozen=True)
class UnitName:
    """`prefix@instance.kind`, where `@instance` may be missing, or empty for a template."""

    full: str
    prefix: str
    instance: str | None
    kind: str

    @property
    def stem(self) -> str:
        """The name without its kind."""
        return self.full[: -len(self.kind) - 1]

    @property
    def template(self) -> str | None:
        """The template that this is an instance of, or None."""
        return f"{self.prefix}@.{self.kind}" if self.instance else None


def parse_name(name: str) -> UnitName:
    """Take a name apart; a name that systemd would refuse is a UnitError."""
    stem, dot, kind = name.rpartition(".")
    if not dot or kind not in KINDS:
        raise UnitError(f"'{name}' is not a unit name: it must end in .service, .timer, .target or another unit type.")
    if len(name) > NAME_LIMIT:
        raise UnitError(f"The unit name '{name[:40]}...' is longer than {NAME_LIMIT} characters.")
    if not _STEM.fullmatch(stem):
        raise UnitError(
            f"'{name}' is not a unit name: only letters, digits and : _ . \\ - @ may stand before '.{kind}'."
        )
    prefix, at, instance = stem.partition("@")
    return UnitName(name, prefix, instance if at else None, kind)


def unescape(text: str) -> str:
    """The string that a name stands for: `-` is `/`, `\\xHH` a byte, as `systemd-escape --unescape` has it."""
    raw = _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text.replace("-", "/"))
    try:
        return raw.encode("latin-1").decode()
    except UnicodeError:
        return raw


@dataclass(frozen=True)
class Host:
    """What the machine's specifiers stand for."""

    hostname: str
    machine_id: str
    boot_id: str
    kernel: str
    runtime_dir: str = "/run"


def specifiers(name: UnitName, host: Host | None) -> dict[str, str]:
    """Map each specifier's letter to its text. Without a host the machine's own (%H %m %b %v) are missing."""
    last = name.prefix.rpartition("-")[2]
    table = {
        "n": name.full,
        "N": name.stem,
        "p": name.prefix,
        "P": unescape(name.prefix),
        "j": last,
        "J": unescape(last),
        "i": name.instance or "",
        "I": unescape(name.instance or ""),
        "f": "/" + unescape(name.instance if name.instance else name.prefix).lstrip("/"),
        "t": "/run",
        "S": "/var/lib",
        "C": "/var/cache",
        "L": "/var/log",
        "E": "/etc",
        "T": "/tmp",
        "V": "/var/tmp",
        "u": "root",
        "U": "0",
        "g": "root",
        "G": "0",
        "h": "/root",
        "s": "/bin/sh",
        "%": "%",
    }
    if host is not None:
        short = host.hostname.partition(".")[0]
        table |= {"H": host.hostname, "l": short, "q": short, "m": host.machine_id, "b": host.boot_id}
        table |= {"v": host.kernel, "t": host.runtime_dir}
    return table


HOST_LETTERS = "Hlqmbv"


def expand(text: str, table: Mapping[str, str]) -> str:
    """Replace the specifiers in a text. Those of a machine stay as they are when no machine is known yet."""
    if "%" not in text:
        return text
    out = []
    index = 0
    while index < len(text):
        char = text[index]
        if char != "%":
            out.append(char)
            index += 1
            continue
        letter = text[index + 1 : index + 2]
        if letter in table and letter:
            out.append(table[letter])
        elif letter and letter in HOST_LETTERS:
            out.append("%" + letter)
        else:
            raise BadValue(f"'%{letter}' is not a specifier (write %% for a percent sign)", index)
        index += 2
    return "".join(out)
