"""kvctl's verbs on leases: grant revoke timetolive list keep-alive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli.kvctl import fields, shape
from cli.kvctl.keys import text
from cli.kvctl.session import BAD_CONNECTION, call, count, flags, number, run
from cli.kvctl.show import allow, out, show, show_message

if TYPE_CHECKING:
    from kvstore.client import Client
    from kvstore.model import LeaseGrant

Id = Annotated[list[str] | None, typer.Argument(metavar="LEASE", show_default=False)]
Ttl = Annotated[list[str] | None, typer.Argument(metavar="SECONDS", show_default=False)]
_RENEWALS = 3
"""Renewals within a TTL."""


def _lease(words: list[str] | None, message: str) -> int:
    (word,) = count(words, 1, 1, message)
    return number(word, "bad lease ID arg ({}), expecting ID in Hex")


def grant(words: Ttl = None) -> None:
    """Make a lease of so many seconds."""
    allow("fields")
    (word,) = count(words, 1, 1, "lease grant command needs TTL argument")
    ttl = number(word, "bad TTL ({})", base=10)
    result = run(lambda client: client.lease_grant(ttl), saying="failed to grant lease ({})")
    show(
        shape.lease(result) | {"Error": ""},
        lambda: [f"lease {result.id & _ALL:016x} granted with TTL({result.ttl}s)"],
        fields=lambda: fields.lease(result.header, result.id, TTL=result.ttl),
    )


_ALL = 2**64 - 1
"""An id's bits: ids are numbers with a sign, but are written without."""


def revoke(words: Id = None) -> None:
    """End a lease and delete its keys."""
    allow("fields", "protobuf")
    held = _lease(words, "lease revoke command needs 1 argument")
    answer = call("Lease/LeaseRevoke", {"ID": held}, saying="failed to revoke lease ({})")
    simple = f"lease {held & _ALL:016x} revoked"
    show_message("LeaseRevokeResponse", answer, lambda: [simple], lambda: fields.head(answer["header"]))


def timetolive(words: Id = None, keys: Annotated[bool, typer.Option("--keys", help="And its keys.")] = False) -> None:
    """Say what is left of a lease."""
    allow("fields")
    held = _lease(words, "lease timetolive command needs lease ID as argument")
    result = run(lambda client: client.lease_time_to_live(held, keys), code=BAD_CONNECTION)
    if result.granted_ttl == 0 and result.ttl == -1:
        simple = f"lease {result.id & _ALL:016x} already expired"
    else:
        simple = f"lease {result.id & _ALL:016x} granted with TTL({result.granted_ttl}s), remaining({result.ttl}s)"
        simple += f", attached keys([{' '.join(map(text, result.keys))}])" if keys else ""
    numbers = {"TTL": result.ttl, "GrantedTTL": result.granted_ttl}
    show(
        shape.time_to_live(result, keys),
        lambda: [simple],
        fields=lambda: [
            *fields.lease(result.header, result.id, **numbers),
            *(f'"Key" : {fields.text(key)}' for key in result.keys),
        ],
    )


def list_() -> None:
    """List all leases."""
    allow("fields")
    found = run(lambda client: client.lease_list(), code=BAD_CONNECTION)
    ids = [f"{one & _ALL:016x}" for one in found.ids]
    show(
        shape.leases(found),
        lambda: [f"found {len(found.ids)} leases", *ids],
        fields=lambda: [
            *fields.header(found.header),
            *(f'"ID" : {shown}' for shown in (ids if flags.hex else map(str, found.ids))),
        ],
    )


def _show_renewal(renewed: LeaseGrant) -> None:
    show(
        shape.lease(renewed),
        lambda: [f"lease {renewed.id & _ALL:016x} keepalived with TTL({renewed.ttl})"],
        fields=lambda: fields.lease(renewed.header, renewed.id, TTL=renewed.ttl),
    )


def keep_alive(words: Id = None, once: Annotated[bool, typer.Option("--once", help="Renew once.")] = False) -> None:
    """Renew a lease until interrupted, or until it is no more."""
    import asyncio

    from kvstore.errors import LeaseNotFound

    allow("fields")
    held = _lease(words, "lease keep-alive command needs lease ID as argument")

    async def work(client: Client) -> None:
        while True:
            renewed = await client.lease_keepalive(held)
            _show_renewal(renewed)
            await asyncio.sleep(renewed.ttl / _RENEWALS)

    async def until_gone(client: Client) -> None:
        try:
            await work(client)
        except LeaseNotFound:
            if flags.output == "simple":
                out(f"lease {held & _ALL:016x} expired or revoked.")

    if once:
        _show_renewal(run(lambda client: client.lease_keepalive(held), code=BAD_CONNECTION))
    else:
        run(until_gone, patient=True, code=BAD_CONNECTION)
