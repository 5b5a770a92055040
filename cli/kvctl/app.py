"""The command kvctl: its verbs and global flags. Global flags may stand anywhere before `--`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cli import completion
from cli.kvctl import admin, data
from cli.kvctl.session import BAD_ARGUMENTS, flags, seconds
from cli.output import fail

app = typer.Typer(
    help="Talk to the store: etcd's verbs, flags and outputs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
VALUED = ("--endpoints", "-w", "--write-out", "--command-timeout", "--dial-timeout")
PASSING = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.callback()
def settings(
    endpoints: Annotated[str, typer.Option(envvar="ETCDCTL_ENDPOINTS", help="Separated by commas.")] = "127.0.0.1:2379",
    write_out: Annotated[str, typer.Option("-w", "--write-out", help="simple or json.")] = "simple",
    as_json: Annotated[bool, typer.Option("--json", help="The same as -w json.")] = False,
    command_timeout: Annotated[str, typer.Option(help="Patience with the store.")] = "5s",
    dial_timeout: Annotated[str, typer.Option(hidden=True)] = "2s",
) -> None:
    """Take the global flags."""
    if write_out not in ("simple", "json", "table"):
        fail(f"{write_out!r} is not an output: simple or json.", BAD_ARGUMENTS)
    seconds(dial_timeout)
    flags.endpoints = [one.strip() for one in endpoints.split(",") if one.strip()]
    flags.json = as_json or write_out == "json"
    flags.timeout = seconds(command_timeout)


app.command()(data.put)
app.command()(data.get)
app.command("del")(data.delete)
app.command()(data.watch)
app.command()(data.txn)
app.add_typer(admin.lease, name="lease")
app.add_typer(admin.member, name="member")
app.add_typer(admin.endpoint, name="endpoint")
app.command("health")(admin.health)
app.command("bench", context_settings=PASSING)(admin.bench)


def arranged(words: list[str]) -> list[str]:
    """The global flags first."""
    ours: list[str] = []
    rest: list[str] = []
    left = iter(words)
    for word in left:
        if word == "--":
            return [*ours, *rest, word, *left]
        if word in VALUED:
            ours += [word, *[value for value in [next(left, None)] if value is not None]]
        elif word == "--json" or word.startswith(tuple(f"{flag}=" for flag in VALUED)):
            ours += ["-w", word[3:]] if word.startswith("-w=") else [word]
        else:
            rest.append(word)
    return ours + rest


def main() -> None:
    """The console script."""
    completion.asked("kvctl")
    app(args=arranged(sys.argv[1:]))


if __name__ == "__main__":
    main()
