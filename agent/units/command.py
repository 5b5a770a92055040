"""A line of ExecStart= and its like: prefixes, words, several commands in one line, and variables at run time.

Source: systemd.service(5), "COMMAND LINES". What a docker line means is `docker_line`'s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from agent.units.errors import BadValue
from agent.units.names import expand
from agent.units.words import split_words

ARGUMENT_LIMIT = 4096
_VARIABLE = re.compile(r"\$(\$|\{([A-Za-z_][A-Za-z0-9_]*)(?::([-+])([^}]*))?\})")
_LONE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")


@dataclass(frozen=True)
class Command:
    """One command: what to run, its arguments (argv[0] first), and what its prefixes ask for."""

    path: str
    argv: tuple[str, ...]
    ignore_failure: bool = False
    """`-`: a failure counts as success."""
    privileged: bool = False
    """`+`, `!` or `!!`: run as root whatever User= says."""
    expand_variables: bool = True
    """False after `:`."""

    @property
    def words(self) -> tuple[str, ...]:
        """The path and the arguments behind argv[0]."""
        return (self.path, *self.argv[1:])


def parse_commands(value: str, table: Mapping[str, str]) -> tuple[Command, ...]:
    """Read the commands of one setting; `table` holds the specifiers. Errors are BadValue."""
    words = split_words(value)
    if len(words) > ARGUMENT_LIMIT:
        raise BadValue(f"A command has more than {ARGUMENT_LIMIT} words", words[ARGUMENT_LIMIT].offset)
    groups: list[list[tuple[str, int]]] = [[]]
    for word in words:
        if word.raw == ";":
            groups.append([])
            continue
        text = ";" if word.raw == "\\;" else word.text
        try:
            groups[-1].append((expand(text, table), word.offset))
        except BadValue as error:
            raise BadValue(error.reason, word.offset) from None
    return tuple(_command(group) for group in groups if group)


def _command(words: list[tuple[str, int]]) -> Command:
    first, offset = words[0]
    ignore = privileged = own_argv0 = False
    variables = True
    while first[:1] in ("-", "@", ":", "+", "!") and first:
        match first[0]:
            case "-":
                ignore = True
            case "@":
                own_argv0 = True
            case ":":
                variables = False
            case _:
                privileged = True
        first = first[1:]
        offset += 1
    if not first:
        raise BadValue("The command is empty", offset)
    if first.endswith("/"):
        raise BadValue(f"The command '{first}' is a directory", offset)
    if "/" in first and not first.startswith("/"):
        raise BadValue(f"The command '{first}' must be an absolute path, or a name that PATH finds", offset)
    rest = [text for text, _ in words[1:]]
    if own_argv0:
        if not rest:
            raise BadValue("The prefix '@' wants the name to run as behind the command", offset)
        return Command(first, tuple(rest), ignore, privileged, variables)
    return Command(first, (first, *rest), ignore, privileged, variables)


def expand_variables(command: Command, env: Mapping[str, str]) -> tuple[str, ...]:
    """The arguments as they run: `${X}` inside a word, `$X` as a word of its own (split at blanks), `$$` a dollar."""
    if not command.expand_variables:
        return command.argv
    out = [command.argv[0]]
    for word in command.argv[1:]:
        lone = _LONE.fullmatch(word)
        if lone:
            out.extend(part.text for part in split_words(env.get(lone[1], ""), keep_unknown=True))
        else:
            out.append(_VARIABLE.sub(lambda match: _value(match, env), word))
    return tuple(out)


def _value(match: re.Match[str], env: Mapping[str, str]) -> str:
    if match[1] == "$":
        return "$"
    value = env.get(match[2], "")
    match match[3]:
        case "-":
            return value or match[4]
        case "+":
            return match[4] if value else ""
    return value
