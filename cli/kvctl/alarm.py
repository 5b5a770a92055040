"""kvctl's verbs on alarms, list disarm, and on downgrades, validate enable cancel."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.kvctl import fields
from cli.kvctl.session import BAD_ARGUMENTS, call, count
from cli.kvctl.show import allow, show_message
from cli.output import fail

Nothing = Annotated[list[str] | None, typer.Argument(hidden=True)]
Version = Annotated[list[str] | None, typer.Argument(metavar="VERSION", show_default=False)]
_GET, _DEACTIVATE = 0, 2
_VALIDATE, _ENABLE, _CANCEL = 0, 1, 2


def _show(alarms: list[dict[str, int]], answer: dict[str, object]) -> None:
    def named(one: dict[str, int]) -> str:
        # As Go prints a message: what is zero is left out, a space after each field.
        member = f"memberID:{one['memberID']} " if one["memberID"] else ""
        return member + (f"alarm:{fields.ALARMS[one['alarm']]} " if one["alarm"] else "")

    show_message("AlarmResponse", answer, lambda: map(named, alarms), lambda: fields.alarms(answer))


def list_(words: Nothing = None) -> None:
    """List the alarms that are raised: NOSPACE, CORRUPT."""
    allow("fields", "protobuf")
    count(words, 0, 0, "alarm list command accepts no arguments")
    answer = call("Maintenance/Alarm", {"action": _GET})
    _show(answer["alarms"], answer)


def disarm(words: Nothing = None) -> None:
    """Take back every alarm, and print those that were raised."""
    allow("fields", "protobuf")
    count(words, 0, 0, "alarm disarm command accepts no arguments")
    answer = call("Maintenance/Alarm", {"action": _DEACTIVATE})
    _show(answer["alarms"], answer)


def _downgrade(verb: str, action: int, words: list[str] | None) -> None:
    allow("protobuf")
    target, *more = count(words, 1, 1000, "TARGET_VERSION not provided")
    if more:
        fail("too many arguments", BAD_ARGUMENTS)
    if not target:
        fail("target version not provided", BAD_ARGUMENTS)
    _change(verb, action, target)


def _change(verb: str, action: int, target: str) -> None:
    answer = call("Maintenance/Downgrade", {"action": action, "version": target})
    simple = f"Downgrade {verb} success, cluster version {answer['version']}"
    show_message("DowngradeResponse", answer, lambda: [simple])


def downgrade_validate(words: Version = None) -> None:
    """Ask whether the cluster could go down to a version."""
    _downgrade("validate", _VALIDATE, words)


def downgrade_enable(words: Version = None) -> None:
    """Begin to go down to a version."""
    _downgrade("enable", _ENABLE, words)


def downgrade_cancel(words: Nothing = None) -> None:
    """End a downgrade that was begun."""
    allow("protobuf")
    _change("cancel", _CANCEL, "")
