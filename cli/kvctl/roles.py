"""kvctl's verbs on roles: add delete get list grant-permission revoke-permission."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from cli.kvctl import fields
from cli.kvctl.keys import raw
from cli.kvctl.session import BAD_ARGUMENTS, call, count
from cli.kvctl.show import allow, show_message
from cli.output import fail
from kvstore.client import prefix_end

Name = Annotated[list[str] | None, typer.Argument(metavar="ROLE", show_default=False)]
Nothing = Annotated[list[str] | None, typer.Argument(hidden=True)]
Grant = Annotated[
    list[str] | None, typer.Argument(metavar="ROLE read|write|readwrite KEY [RANGE_END]", show_default=False)
]
Span = Annotated[list[str] | None, typer.Argument(metavar="ROLE KEY [RANGE_END]", show_default=False)]
Prefix = Annotated[bool, typer.Option("--prefix", help="All keys that begin with KEY.")]
FromKey = Annotated[bool, typer.Option("--from-key", help="All keys from KEY on.")]
_KINDS = {"READ": 0, "WRITE": 1, "READWRITE": 2}
_OPEN = b"\0"
_MANY = 1000


def _done(method: str, request: Mapping[str, Any], simple: str) -> None:
    answer = call(f"Auth/{method}", request)
    show_message(f"Auth{method}Response", answer, lambda: [simple], lambda: fields.head(answer["header"]))


def add(words: Name = None) -> None:
    """Add a role."""
    allow("fields", "protobuf")
    (name,) = count(words, 1, 1, "role add command requires role name as its argument")
    _done("RoleAdd", {"name": name}, f"Role {name} created")


def delete(words: Name = None) -> None:
    """Delete a role."""
    allow("fields", "protobuf")
    (name,) = count(words, 1, 1, "role delete command requires role name as its argument")
    _done("RoleDelete", {"role": name}, f"Role {name} deleted")


def get(words: Name = None) -> None:
    """Show what a role may read and write."""
    allow("fields", "protobuf")
    (name,) = count(words, 1, 1, "role get command requires role name as its argument")
    answer = call("Auth/RoleGet", {"role": name})
    show_message("AuthRoleGetResponse", answer, lambda: role_lines(name, answer), lambda: fields.role(answer))


def list_(words: Nothing = None) -> None:
    """List all roles."""
    allow("fields", "protobuf")
    count(words, 0, 0, "role list command requires no arguments")
    answer = call("Auth/RoleList", {})
    show_message("AuthRoleListResponse", answer, lambda: answer["roles"], lambda: fields.roles(answer))


def role_lines(name: str, answer: Mapping[str, Any]) -> Iterator[str]:
    """What a role may do, in words."""
    yield f"Role {name}"
    for title, kinds in (("KV Read:", (0, 2)), ("KV Write:", (1, 2))):
        yield title
        yield from (f"\t{_span(one['key'], one['range_end'])}" for one in answer["perm"] if one["permType"] in kinds)


def _text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


def _span(key: bytes, end: bytes) -> str:
    if not end:
        return _text(key)
    shown = f"[{_text(key)}, " + ("<open ended>" if end == _OPEN else f"{_text(end)})")
    return shown + (f" (prefix {_text(key)})" if prefix_end(key) == end else "")


def _range(words: list[str], prefix: bool, from_key: bool) -> tuple[bytes, bytes]:
    key, end = raw(words[0]), raw(words[1]) if len(words) > 1 else b""
    if prefix and from_key:
        fail("--from-key and --prefix flags are mutually exclusive", BAD_ARGUMENTS)
    if not key:
        return _OPEN, _OPEN if prefix or from_key else b""
    if len(words) > 1 and (prefix or from_key):
        fail(f"unexpected endkey argument with --{'prefix' if prefix else 'from-key'} flag", BAD_ARGUMENTS)
    if prefix:
        return key, prefix_end(key)
    return key, _OPEN if from_key else end


def grant_permission(words: Grant = None, prefix: Prefix = False, from_key: FromKey = False) -> None:
    """Let a role read or write a key or a range of keys."""
    allow("fields", "protobuf")
    message = "role grant command requires role name, permission type, and key [endkey] as its argument"
    name, kind, *rest = count(words, 3, _MANY, message)
    if kind.upper() not in _KINDS:
        fail(f"invalid permission type: {kind}", BAD_ARGUMENTS)
    key, end = _range(rest, prefix, from_key)
    permission = {"permType": _KINDS[kind.upper()], "key": key, "range_end": end}
    _done("RoleGrantPermission", {"name": name, "perm": permission}, f"Role {name} updated")


def revoke_permission(words: Span = None, prefix: Prefix = False, from_key: FromKey = False) -> None:
    """Take a permission back, as it was given."""
    allow("fields", "protobuf")
    message = "role revoke-permission command requires role name and key [endkey] as its argument"
    name, *rest = count(words, 2, _MANY, message)
    key, end = _range(rest, prefix, from_key)
    if not end:
        simple = f"Permission of key {rest[0]} is revoked from role {name}"
    elif end == _OPEN:
        simple = f"Permission of range [{rest[0]}, <open ended> is revoked from role {name}"
    else:
        simple = f"Permission of range [{rest[0]}, {_text(end)}) is revoked from role {name}"
    _done("RoleRevokePermission", {"role": name, "key": key, "range_end": end}, simple)
