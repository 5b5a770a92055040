"""The names of the cluster's keys and the form of their values: JSON objects with a version. `docs/keys.md` is the
public contract. This module reads and writes no store.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

ROOT = b"/fleet/v1/"
VERSION = 1


class RegistryError(Exception):
    """The cluster's records can't be read or written; the text says which and why."""


class NewerRecord(RegistryError):
    """A record was written by a newer program."""


class Record(dict[str, Any]):
    """A record's fields; one that is missing, or is no number where one belongs, is a RegistryError."""

    def __init__(self, key: bytes, fields: Mapping[str, Any]) -> None:
        super().__init__(fields)
        self._name = key.decode(errors="replace")

    def __missing__(self, field: str) -> Any:
        raise RegistryError(f"The record {self._name} has no field '{field}'.")

    def number(self, field: str, default: int | None = None) -> int:
        """A field that is a whole number."""
        value = self[field] if default is None else self.get(field, default)
        if not isinstance(value, int):
            raise RegistryError(f"The field '{field}' of the record {self._name} is no whole number.")
        return value


def encode(**fields: Any) -> bytes:
    """Make a record's value."""
    return json.dumps({"v": VERSION, **fields}, separators=(",", ":"), ensure_ascii=False).encode()


def decode(key: bytes, value: bytes) -> Record:
    """Read a record's value. A damaged one is a RegistryError, one of a newer version a NewerRecord."""
    try:
        record = json.loads(value)
        version = int(record["v"])
    except (ValueError, KeyError, TypeError) as error:
        raise RegistryError(f"The record {key.decode(errors='replace')} is not one of ours: {error}.") from error
    if version > VERSION:
        raise NewerRecord(
            f"The record {key.decode(errors='replace')} has version {version}; "
            f"this program reads up to {VERSION}. Upgrade fleetd on this machine."
        )
    return Record(key, record)


def file_hash(text: str) -> str:
    """The name of a unit file's text: its sha256 in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def _key(*parts: str) -> bytes:
    return ROOT + "/".join(parts).encode()


FILES = ROOT + b"files/"
UNITS = ROOT + b"units/"
PLACEMENTS = ROOT + b"placements/"
STATES = ROOT + b"states/"
CONTAINERS = ROOT + b"containers/"
PRESENCE = ROOT + b"presence/"
MACHINES = ROOT + b"machines/"
REASONS = ROOT + b"reasons/"
LEADER = ROOT + b"engine/leader"
ALARM = ROOT + b"engine/alarm"
VOTERS = ROOT + b"cluster/voters"


def file(digest: str) -> bytes:
    return _key("files", digest)


def unit(name: str) -> bytes:
    return _key("units", name)


def placement(machine: str, name: str) -> bytes:
    return _key("placements", machine, name)


def placements(machine: str) -> bytes:
    """The prefix that one machine's agent watches."""
    return _key("placements", machine, "")


def state(machine: str, name: str) -> bytes:
    return _key("states", machine, name)


def container(machine: str, container_id: str) -> bytes:
    return _key("containers", machine, container_id)


def presence(machine: str) -> bytes:
    return _key("presence", machine)


def machine(machine_id: str) -> bytes:
    return _key("machines", machine_id)


def returning(machine_id: str) -> bytes:
    return _key("returns", machine_id)


def reason(name: str) -> bytes:
    return _key("reasons", name)


def split(key: bytes) -> tuple[str, tuple[str, ...]]:
    """Take a key apart: its kind and the names after it. A key outside our root has the kind ''."""
    if not key.startswith(ROOT):
        return "", ()
    kind, *names = key[len(ROOT) :].decode(errors="replace").split("/")
    return kind, tuple(names)


def text_map(value: object) -> dict[str, str]:
    """A record's field that maps strings to strings."""
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, Mapping) else {}
