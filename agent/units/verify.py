"""What is to be said of a unit file before it is submitted: its notices, and what no single setting tells. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from agent.units.builtin import is_builtin
from agent.units.docker_line import DockerLineError, parse_docker_line
from agent.units.errors import Notice, UnitError, UnitFileError
from agent.units.model import PHASES, Unit
from agent.units.names import parse_name
from agent.units.parse import parse_text
from agent.units.spec import parse_unit

SUPPORTED = frozenset({"service"})


def verify(name: str, text: str, known: Collection[str] = ()) -> tuple[Unit, tuple[Notice, ...]]:
    """Read a unit file as it will be run, and say what is doubtful. What can't be run is a UnitFileError.

    `known` names the units of the cluster, for a warning when a dependency is none of them.
    """
    unit = parse_unit(name, text)
    if unit.parts.kind not in SUPPORTED:
        raise UnitFileError(f"Units of the type .{unit.parts.kind} can't be run yet; .service can.", unit=name)
    notices = list(unit.notices)
    if unit.service is not None:
        for phase in PHASES:
            for command in unit.service.commands(phase):
                try:
                    step = parse_docker_line(command.words)
                except DockerLineError as error:
                    if any("$" in word for word in command.words):
                        continue
                    line, column = _place(text, command.words)
                    raise UnitFileError(str(error), unit=name, line=line, column=column) from None
                notices.extend(Notice(said) for said in (step.notices if step else ()))
        if unit.service.type == "forking" and not unit.service.pid_file:
            notices.append(Notice("Type=forking without PIDFile=: the main process has to be guessed."))
    section = unit.unit
    for needed in (*section.requires, *section.binds_to, *section.requisite, *section.wants):
        try:
            parse_name(needed)
        except UnitError as error:
            raise UnitFileError(str(error), unit=name) from None
        if not is_builtin(needed) and needed not in known:
            hard = needed not in section.wants
            end = "it does not start on a machine without it" if hard else "it is started only where it is"
            notices.append(Notice(f"{needed} is not a unit of this cluster yet; {end}."))
    return unit, tuple(notices)


def _place(text: str, words: Sequence[str]) -> tuple[int, int]:
    """Where a command line begins in a file; (0, 0) when specifiers have changed its words."""
    settings, _ = parse_text(text)
    for setting in settings:
        if setting.key.startswith("Exec") and all(word in setting.value for word in words):
            return setting.place(0)
    return 0, 0
