"""The command line's frame: global flags, and commands that are imported only when they are asked for."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Annotated

import typer

from cli import completion
from cli.fleetctl.output import Failure, fail
from cli.fleetctl.session import choose_endpoint
from cli.output import is_text
from fleetd.api.client import DEFAULT_ENDPOINT, ClientError

COMMANDS = {
    "list-machines": ("cli.fleetctl.lists", "list_machines"),
    "list-units": ("cli.fleetctl.lists", "list_units"),
    "list-unit-files": ("cli.fleetctl.lists", "list_unit_files"),
    "submit": ("cli.fleetctl.units", "submit"),
    "load": ("cli.fleetctl.units", "load"),
    "start": ("cli.fleetctl.units", "start"),
    "stop": ("cli.fleetctl.units", "stop"),
    "unload": ("cli.fleetctl.units", "unload"),
    "destroy": ("cli.fleetctl.units", "destroy"),
    "cat": ("cli.fleetctl.logs", "cat"),
    "status": ("cli.fleetctl.logs", "status"),
    "journal": ("cli.fleetctl.logs", "journal"),
}
EPILOG = "Examples:  fleetctl start hello.service   |   fleetctl list-units --json   |   fleetctl journal -f hello"


def build(names: list[str]) -> typer.Typer:
    """An app with these commands alone."""
    app = typer.Typer(
        name="fleetctl",
        help="Talk to the cluster through the fleetd of this machine.",
        epilog=EPILOG,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def root(
        endpoint: Annotated[
            str, typer.Option(envvar="FLEETCTL_ENDPOINT", help="unix:///PATH or http://HOST:PORT")
        ] = DEFAULT_ENDPOINT,
    ) -> None:
        choose_endpoint(endpoint)

    for name in names:
        module, function = COMMANDS[name]
        command = getattr(importlib.import_module(module), function)
        app.command(name, epilog=getattr(command, "examples", None))(command)
    return app


def main() -> None:
    """Run the command line; errors are a sentence on stderr and an exit code."""
    completing = completion.asked("fleetctl")
    if strange := [word for word in sys.argv[1:] if not is_text(word)]:
        fail(Failure(f"{strange[0]!a} is not text in UTF-8, as names of units and files must be."))
    wanted = [] if completing else [word for word in sys.argv[1:] if word in COMMANDS]
    app = build(wanted[:1] or list(COMMANDS))
    try:
        app()
    except Failure as error:
        fail(error, error.code)
    except ClientError as error:
        fail(error)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None


if __name__ == "__main__":
    main()
