"""kvctl's verb bench, and the load generator that it and the checks run."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import typer

from cli.kvctl import security
from cli.kvctl.session import BAD_ARGUMENTS, call, flags, identity
from cli.output import fail


def generator() -> str:
    """The path of kvload; of a checkout, the one built there."""
    beside = Path(sys.executable).with_name("kvload")
    built = Path(__file__).parents[2] / "target" / "release" / "kvload"
    program = next((str(one) for one in (built, beside) if one.exists()), shutil.which("kvload"))
    if program is None:
        fail("The load generator kvload is not installed beside kvctl.", BAD_ARGUMENTS)
    return program


def environment() -> dict[str, str]:
    """What kvload runs with: the user's token, where there is a user."""
    if (who := identity()) is None:
        return dict(os.environ)
    name, secret = who
    if name:
        secret = call("Auth/Authenticate", {"name": name, "password": secret}, login=None)["token"]
    return {**os.environ, "KVLOAD_TOKEN": secret}


def bench(context: typer.Context) -> None:
    """Load the store with kvload; its arguments follow, for example `put --clients 64 --total 10000`."""
    words = [generator(), *context.args]
    if context.args and not any(word.startswith("--endpoints") for word in context.args):
        words += ["--endpoints", ",".join(flags.endpoints), *security.words(flags.tls)]
    if flags.json and "--json" not in words:
        words.append("--json")
    os.execve(words[0], words, environment())
