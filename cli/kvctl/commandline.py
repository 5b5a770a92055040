"""The command line as etcd's client takes it: global flags anywhere, flags that are on or off with `=true`, verbs by
their beginning; and what its errors are called."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

from typer.core import TyperGroup
from typer.exceptions import TyperException

from cli.output import fail

VALUED = (
    *("--endpoints", "-w", "--write-out", "--command-timeout", "--dial-timeout", "--keepalive-time"),
    *("--keepalive-timeout", "--user", "--password", "--auth-jwt-token", "--cacert", "--cert", "--key"),
    *("-d", "--discovery-srv", "--discovery-srv-name", "--max-request-bytes", "--max-recv-bytes"),
)
"""Global flags with a value."""
PLAIN = (
    *("--json", "--hex", "--debug", "--insecure-skip-tls-verify", "--insecure-transport", "--no-insecure-transport"),
    *("--insecure-discovery", "--no-insecure-discovery"),
)
"""Global flags without."""
FLAG = "{flag}"
"""Stands for a flag's name in what its reader says of its value."""
EXEC_VERB = "watch"
"""The verb that runs what follows `--`; no other begins like it."""
_ON_BY_DEFAULT = ("--interactive", "--insecure-transport", "--insecure-discovery")
"""Flags that are on unless they are turned off; elsewhere off is as without."""
_SWITCH = re.compile(r"(--(?!.*password|dest-p)[a-z][a-z-]*)=(t|true|f|false)", re.IGNORECASE)
_command: list[list[str] | None] = [None]


class Verbs(TyperGroup):
    """Verbs that are known by their beginning too, when it is that of one alone."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The verb, or None."""
        if cmd_name in self.commands:
            return self.commands[cmd_name]
        found = [name for name in self.commands if name.startswith(cmd_name)]
        return self.commands[found[0]] if len(found) == 1 else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The verb that the arguments name."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            wrong(
                f'unknown command "{args[0]}" for "{ctx.command_path}"', f"Run '{ctx.command_path} --help' for usage."
            )
        return super().resolve_command(ctx, args)


def spread(words: list[str]) -> list[str]:
    """Flags that are on or off without a value: `--prefix=true` is `--prefix`, `--prefix=false` is left out."""
    found: list[str] = []
    for at, word in enumerate(words):
        if word == "--":
            return [*found, *words[at:]]
        match = _SWITCH.fullmatch(word)
        if match is None or match[1] in VALUED:
            found.append(word)
        elif match[2].lower() in ("t", "true"):
            found.append(match[1])
        elif match[1] in _ON_BY_DEFAULT or match[1].startswith("--dest-"):
            found.append(f"--no-{match[1][2:]}")
    return found


def command_words() -> list[str] | None:
    """What stands after `--` of a verb that runs a command; None without `--`."""
    return _command[0]


def plain_words(words: list[str]) -> Iterator[str]:
    """The words that are no flags and no global flag's value."""
    left = iter(words)
    for word in left:
        if word in VALUED:
            next(left, None)
        elif not word.startswith("-"):
            yield word


def arranged(words: list[str]) -> list[str]:
    """The global flags first."""
    ours: list[str] = []
    rest: list[str] = []
    left = iter(spread(words))
    for word in left:
        if word == "--":
            if next(plain_words(rest), "")[:1] == EXEC_VERB[0]:
                _command[0] = list(left)
                break
            return [*ours, *rest, word, *left]
        if word in VALUED:
            ours += [word, *[value for value in [next(left, None)] if value is not None]]
        elif word in PLAIN or word.startswith(tuple(f"{flag}=" for flag in VALUED)):
            ours += ["-w", word[3:]] if word.startswith("-w=") else [word]
        elif word.startswith("-w"):
            ours += ["-w", word[2:]]
        else:
            rest.append(word)
    return ours + rest


def explanation(error: TyperException) -> str:
    """A mistake on the command line in the words of etcd's client."""
    option = getattr(error, "option_name", "")
    parameter = getattr(error, "param", None)
    text = str(getattr(error, "message", error))
    if type(error).__name__ == "NoSuchOption":
        return (
            f"unknown flag: {option}"
            if option.startswith("--")
            else f"unknown shorthand flag: '{option[1:]}' in {option}"
        )
    if option and "requires" in text:
        return f"flag needs an argument: {option}"
    if parameter is not None and parameter.opts:
        name = ", ".join(sorted(parameter.opts, key=len))
        return text.replace(FLAG, f'"{name}"')
    return text


def explained(error: TyperException) -> NoReturn:
    """End the program for a mistake on the command line, or with the help of a group without a verb."""
    if type(error).__name__ == "NoArgsIsHelpError":
        print(getattr(error, "message", error))
        raise SystemExit(0)
    context = getattr(error, "ctx", None)
    wrong(explanation(error), f"Run '{context.command_path} --help' for usage." if context else "")


def wrong(text: str, help_line: str = "") -> NoReturn:
    """A mistake on the command line."""
    if help_line:
        print(help_line, file=sys.stderr)
    fail(text)
