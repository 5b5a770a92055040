"""kvctl's verbs on authentication, enable disable status, and on users, add delete get list passwd grant-role
revoke-role."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.kvctl import fields
from cli.kvctl.roles import role_lines
from cli.kvctl.session import BAD_ARGUMENTS, call, count, flags, run
from cli.kvctl.show import allow, out, show_message
from cli.output import fail

if TYPE_CHECKING:
    from kvstore.client import Client

Nothing = Annotated[list[str] | None, typer.Argument(hidden=True)]
Name = Annotated[list[str] | None, typer.Argument(metavar="USER", show_default=False)]
NewUser = Annotated[list[str] | None, typer.Argument(metavar="USER[:PASSWORD]", show_default=False)]
UserRole = Annotated[list[str] | None, typer.Argument(metavar="USER ROLE", show_default=False)]
Interactive = Annotated[
    bool, typer.Option("--interactive/--no-interactive", help="Ask for the password, or read it from standard input.")
]
_NO_ROOT_ROLE = "root user does not have root role"


def enable(words: Nothing = None) -> None:
    """Have every client say who it is; the user root, which must be there, gets the role root if need be."""
    from kvstore.errors import StoreError

    count(words, 0, 0, "auth enable command does not accept any arguments")

    async def work(client: Client) -> None:
        try:
            await client.call("Auth/AuthEnable", {})
        except StoreError as error:
            if _NO_ROOT_ROLE not in error.message:
                raise
            await client.call("Auth/RoleAdd", {"name": "root"})
            await client.call("Auth/UserGrantRole", {"user": "root", "role": "root"})
            await client.call("Auth/AuthEnable", {})

    run(work)
    out("Authentication Enabled")


def disable(words: Nothing = None) -> None:
    """Let every client do everything again."""
    count(words, 0, 0, "auth disable command does not accept any arguments")
    call("Auth/AuthDisable", {})
    out("Authentication Disabled")


def status(words: Nothing = None) -> None:
    """Say whether authentication is on."""
    allow("protobuf")
    count(words, 0, 0, "auth status command does not accept any arguments")
    answer = call("Auth/AuthStatus", {})
    enabled = fields.named(answer["enabled"])
    lines = [f"Authentication Status: {enabled}", f"AuthRevision: {answer['authRevision']}"]
    show_message("AuthStatusResponse", answer, lambda: lines)


def _done(method: str, request: Mapping[str, Any], simple: str) -> None:
    answer = call(f"Auth/{method}", request)
    show_message(f"Auth{method}Response", answer, lambda: [simple], lambda: fields.head(answer["header"]))


def _password(name: str, interactive: bool) -> str:
    if not interactive:
        return next(iter(sys.stdin.readline().split()), "")
    from getpass import getpass

    first = getpass(f"Password of {name}: ")
    if not first:
        fail("empty password", BAD_ARGUMENTS)
    if first != getpass(f"Type password of {name} again for confirmation: "):
        fail("given passwords are different", BAD_ARGUMENTS)
    return first


def add(
    words: NewUser = None,
    interactive: Interactive = True,
    new_user_password: Annotated[str, typer.Option(help="The password.", show_default=False)] = "",
    no_password: Annotated[bool, typer.Option("--no-password", help="Known by its certificate alone.")] = False,
) -> None:
    """Add a user."""
    allow("fields", "protobuf")
    (word,) = count(words, 1, 1, "user add command requires user name as its argument")
    name, given, password = word.partition(":")
    if no_password or new_user_password:
        name, password = word, "" if no_password else new_user_password
    elif not given:
        password = _password(word, interactive)
    elif not name:
        fail("empty user name is not allowed", BAD_ARGUMENTS)
    request = {"name": name, "password": password, "options": {"no_password": no_password}}
    _done("UserAdd", request, f"User {name} created")


def delete(words: Name = None) -> None:
    """Delete a user."""
    allow("fields", "protobuf")
    (name,) = count(words, 1, 1, "user delete command requires user name as its argument")
    _done("UserDelete", {"name": name}, f"User {name} deleted")


def get(
    words: Name = None,
    detail: Annotated[bool, typer.Option("--detail", help="And what its roles may do.")] = False,
) -> None:
    """Show a user's roles."""
    allow("protobuf")
    (name,) = count(words, 1, 1, "user get command requires user name as its argument")

    async def work(client: Client) -> tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]:
        user = await client.call("Auth/UserGet", {"name": name})
        roles = user["roles"] if detail else []
        return user, [(role, await client.call("Auth/RoleGet", {"role": role})) for role in roles]

    user, roles = run(work)
    if not detail:
        simple = [f"User: {name}", "Roles:" + "".join(f" {role}" for role in user["roles"])]
        show_message("AuthUserGetResponse", user, lambda: simple)
        return
    if flags.output == "simple":
        out(f"User: {name}")
    for role, answer in roles:
        show_message("AuthRoleGetResponse", answer, partial(_role, role, answer))


def _role(name: str, answer: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield from role_lines(name, answer)


def list_(words: Nothing = None) -> None:
    """List all users."""
    allow("protobuf")
    count(words, 0, 0, "user list command requires no arguments")
    answer = call("Auth/UserList", {})
    show_message("AuthUserListResponse", answer, lambda: answer["users"])


def passwd(words: Name = None, interactive: Interactive = True) -> None:
    """Change a user's password."""
    allow("fields", "protobuf")
    (name,) = count(words, 1, 1, "user passwd command requires user name as its argument")
    request = {"name": name, "password": _password(name, interactive)}
    _done("UserChangePassword", request, "Password updated")


def grant_role(words: UserRole = None) -> None:
    """Give a user a role."""
    allow("fields", "protobuf")
    name, role = count(words, 2, 2, "user grant command requires user name and role name as its argument")
    _done("UserGrantRole", {"user": name, "role": role}, f"Role {role} is granted to user {name}")


def revoke_role(words: UserRole = None) -> None:
    """Take a role from a user."""
    allow("fields", "protobuf")
    name, role = count(words, 2, 2, "user revoke-role requires user name and role name as its argument")
    _done("UserRevokeRole", {"name": name, "role": role}, f"Role {role} is revoked from user {name}")
