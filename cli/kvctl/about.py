"""kvctl's verbs about itself: version options completion."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.kvctl.show import out
from cli.output import fail

API_VERSION = "3.7"
"""The version of etcd's API that kvctl speaks."""
Shell = Annotated[list[str] | None, typer.Argument(metavar="bash|zsh|fish|powershell", show_default=False)]
SHELLS = ("bash", "zsh", "fish", "powershell")


def version() -> None:
    """Print kvctl's version, and that of the API."""
    from importlib.metadata import version as installed

    out(f"kvctl version: {installed('fleetd')}")
    out(f"API version: {API_VERSION}")


def options(context: typer.Context) -> None:
    """Show the global flags, which every verb takes."""
    root = context.find_root()
    formatter = root.make_formatter()
    records = [parameter.get_help_record(root) for parameter in root.command.get_params(root)]
    formatter.write_dl([record for record in records if record])
    out("The following options can be passed to any command:\n")
    out(formatter.getvalue().rstrip("\n"))


def script(words: Shell = None) -> None:
    """Print the script with which a shell completes kvctl's verbs: `source <(kvctl completion bash)`."""
    words = words or []
    if len(words) != 1:
        fail(f"accepts 1 arg(s), received {len(words)}")
    shell = words[0]
    if shell not in SHELLS:
        fail(f'invalid argument "{shell}" for "kvctl completion": one of {", ".join(SHELLS)}')
    from typer._completion_shared import get_completion_script

    out(get_completion_script(prog_name="kvctl", complete_var="_KVCTL_COMPLETE", shell=shell))
