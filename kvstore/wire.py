"""Protobuf's wire format for the messages of `kvstore.messages`, as plain dicts; nothing here talks.

protobuf's own package costs a command line 100 ms, and its symbols clash with those of other etcd clients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvstore.messages import Field, fields

Message = dict[str, Any]
_VARINTS = ("uint64", "int64", "bool")
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIDTHS = {_FIXED64: 8, _FIXED32: 4}
_ALL_BITS = 2**64 - 1
_SIGN_BIT = 2**63


class WireError(ValueError):
    """These bytes are no such message."""


def encode(name: str, message: Mapping[str, Any]) -> bytes:
    """A message's bytes; what it lacks, and what is zero or empty, is left out."""
    out = bytearray()
    for field in fields(name):
        value = message.get(field.name)
        for one in value or () if field.many else (value,):
            if one is not None and (field.many or one or isinstance(one, Mapping)):
                _write(out, field, one)
    return bytes(out)


def _write(out: bytearray, field: Field, value: Any) -> None:
    if field.kind in _VARINTS:
        _write_varint(out, field.number << 3 | _VARINT)
        _write_varint(out, int(value) & _ALL_BITS)
        return
    match value:
        case str():
            data = value.encode(errors="surrogateescape")
        case bytes():
            data = value
        case _:
            data = encode(field.kind, value)
    _write_varint(out, field.number << 3 | _BYTES)
    _write_varint(out, len(data))
    out += data


def _write_varint(out: bytearray, value: int) -> None:
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def decode(name: str, data: bytes) -> Message:
    """A message with all of its fields, those that are not there as zero, empty or None. Raises WireError."""
    known = {field.number: field for field in fields(name)}
    message = {field.name: _default(field) for field in fields(name)}
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        number, kind = key >> 3, key & 7
        value: Any
        if kind == _VARINT:
            value, at = _read_varint(data, at)
        else:
            length, at = _read_varint(data, at) if kind == _BYTES else (_WIDTHS.get(kind, 0), at)
            if (kind != _BYTES and not length) or at + length > len(data):
                raise WireError(f"What came is no {name}.")
            value, at = data[at : at + length], at + length
        field = known.get(number)
        if field is None:
            continue
        if (field.kind in _VARINTS) != (kind == _VARINT):
            raise WireError(f"What came is no {name}: its {field.name} is of another kind.")
        value = _value(field, value)
        if field.many:
            message[field.name].append(value)
        else:
            message[field.name] = value
    return message


def _default(field: Field) -> Any:
    plain: Mapping[str, Any] = {"uint64": 0, "int64": 0, "bool": False, "string": "", "bytes": b""}
    return [] if field.many else plain.get(field.kind)


def _value(field: Field, value: Any) -> Any:
    match field.kind:
        case "uint64":
            return value
        case "int64":
            return value - 2**64 if value >= _SIGN_BIT else value
        case "bool":
            return bool(value)
        case "string":
            return value.decode(errors="surrogateescape")
        case "bytes":
            return value
    return decode(field.kind, value)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value & _ALL_BITS, at
        shift += 7
    raise WireError("What came ends within a number.")
