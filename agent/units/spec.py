"""From the text of a unit file to a :class:`Unit`: which keys there are, how each is read, and what must hold together.

The syntax is `parse`'s, single values are `values`'. `verify` adds what only a set of units can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from agent.units import values
from agent.units.command import parse_commands
from agent.units.errors import BadValue, Notice, UnitError, UnitFileError
from agent.units.model import EnvironmentFile, Install, Resources, Service, Unit, UnitSection, XFleet
from agent.units.names import Host, expand, parse_name, specifiers
from agent.units.parse import Setting, parse_with_dropins
from agent.units.settings import KEYS, MOVED_TO_UNIT, Key, ignored_keys
from agent.units.words import split_words

TEXT_LIMIT = 512 * 1024
"""Bytes of a unit file; the store's message limit is 1.5 MiB."""
_SECTIONS = ("Unit", "Install", "X-Fleet", "Service", "Timer", "Socket", "Path", "Mount", "Slice", "Swap", "Automount")

Values = dict[str, Any]


def parse_unit(name: str, text: str, *, host: Host | None = None, dropins: Sequence[tuple[str, str]] = ()) -> Unit:
    """Read a unit file under the name it runs by.

    Without a host the machine's specifiers stay unexpanded. Unknown keys become notices; a value that can't be
    read is a UnitFileError with line and column, and a bad name a UnitError.
    """
    unit_name = parse_name(name)
    if len(text.encode()) > TEXT_LIMIT:
        raise UnitFileError(f"The file is larger than {TEXT_LIMIT} bytes.", unit=name)
    settings, found = parse_with_dropins(text, dropins, name)
    notices = list(found)
    table = specifiers(unit_name, host)
    sections: dict[str, Values] = {"Unit": {}, "Install": {}, "X-Fleet": {}, "Service": {}}
    places: dict[str, Setting] = {}
    unknown_sections: set[str] = set()
    for setting in settings:
        if setting.section not in _SECTIONS:
            if setting.section not in unknown_sections and not setting.section.startswith("X-"):
                notices.append(Notice(f"The section [{setting.section}] is unknown and ignored.", setting.line, 1))
            unknown_sections.add(setting.section)
            continue
        if setting.section not in sections:
            continue
        if setting.section == "Service" and setting.key in MOVED_TO_UNIT:
            setting = replace(setting, section="Unit")
        key = KEYS[setting.section].get(setting.key)
        if key is None:
            if not setting.key.startswith("X-"):
                notices.append(_unknown(setting))
            continue
        places[setting.key] = setting
        _apply(sections[setting.section], key, setting, table, name)
    try:
        service = _service(name, sections["Service"], places) if unit_name.kind == "service" else None
    except UnitFileError as error:
        if error.line or not notices:
            raise
        # What is missing may be what was ignored: a misspelt section or key.
        ignored = notices[0]
        reason = f"{error.reason} {ignored.text}"
        raise UnitFileError(reason, unit=name, line=ignored.line, column=ignored.column) from error
    if service is not None:
        notices.extend(_without_effect(service, places))
    return Unit(
        name=name,
        text=text,
        unit=UnitSection(**sections["Unit"]),
        fleet=_fleet(name, sections["X-Fleet"], places, notices),
        install=Install(**sections["Install"]),
        service=service,
        notices=tuple(notices),
    )


def _unknown(setting: Setting) -> Notice:
    if setting.key in ignored_keys(setting.section):
        reason = f"{setting.key}= in [{setting.section}] is not supported here and has no effect."
    else:
        reason = f"{setting.key}= in [{setting.section}] is unknown and ignored."
    return Notice(reason, setting.line, 1)


def _apply(values_: Values, key: Key, setting: Setting, table: Mapping[str, str], unit: str) -> None:
    """Read one setting into the values of its section; lists grow, an empty value resets, others are replaced."""
    try:
        if not setting.value:
            for field in key.fields:
                values_.pop(field, None)
            return
        _READERS[key.kind](values_, key, setting.value, table)
    except BadValue as error:
        line, column = setting.place(error.offset)
        raise UnitFileError(f"{setting.key}=: {error.reason}.", unit=unit, line=line, column=column) from None


def _read_scalar(values_: Values, key: Key, value: str, table: Mapping[str, str]) -> None:
    values_[key.field] = key.read(expand(value, table))


def _read_list(values_: Values, key: Key, value: str, table: Mapping[str, str]) -> None:
    words = []
    for word in split_words(value, keep_unknown=True):
        try:
            words.append(key.read(expand(word.text, table)))
        except BadValue as error:
            raise BadValue(error.reason, word.offset + error.offset) from None
    values_[key.field] = tuple(dict.fromkeys((*values_.get(key.field, ()), *words)))


def _read_commands(values_: Values, key: Key, value: str, table: Mapping[str, str]) -> None:
    values_[key.field] = (*values_.get(key.field, ()), *parse_commands(value, table))


def _read_environment(values_: Values, key: Key, value: str, table: Mapping[str, str]) -> None:
    merged = dict(values_.get(key.field, {}))
    for word in split_words(value):
        name, equals, text = expand(word.text, table).partition("=")
        if not equals or not name.replace("_", "a").isalnum() or name[0].isdigit():
            raise BadValue(f"'{word.text}' is not NAME=value", word.offset)
        merged[name] = text
    values_[key.field] = MappingProxyType(merged)


def _read_environment_file(values_: Values, key: Key, value: str, table: Mapping[str, str]) -> None:
    path = expand(value, table)
    entry = EnvironmentFile(values.absolute(path.removeprefix("-")), path.startswith("-"))
    values_[key.field] = (*values_.get(key.field, ()), entry)


def _read_statuses(values_: Values, key: Key, value: str, table: Mapping[str, str]) -> None:
    codes, signals = values.statuses(value.split())
    values_[key.fields[0]] = values_.get(key.fields[0], frozenset()) | codes
    values_[key.fields[1]] = values_.get(key.fields[1], frozenset()) | signals


def _read_timeouts(values_: Values, key: Key, value: str, table: Mapping[str, str]) -> None:
    span = values.seconds(value) or values.INFINITY
    for field in key.fields:
        values_[field] = span


def _read_limit(values_: Values, key: Key, value: str, table: Mapping[str, str]) -> None:
    limits = dict(values_.get("limits", {}))
    limits[key.argument] = values.resource_limit(key.argument, value)
    values_["limits"] = MappingProxyType(limits)


def _read_resource(values_: Values, key: Key, value: str, table: Mapping[str, str]) -> None:
    number = key.read(value)
    resources = values_.get("resources", Resources())
    values_["resources"] = replace(resources, **{key.argument: None if number == values.INFINITY else number})


def _read_directory(values_: Values, key: Key, value: str, table: Mapping[str, str]) -> None:
    path = expand(value, table)
    optional, path = path.startswith("-"), path.removeprefix("-")
    values_["working_directory"] = path if path == "~" else values.absolute(path)
    values_["working_directory_optional"] = optional


def _read_metadata(values_: Values, key: Key, value: str, table: Mapping[str, str]) -> None:
    pairs = list(values_.get(key.field, ()))
    for word in split_words(value, keep_unknown=True):
        name, equals, text = expand(word.text, table).partition("=")
        if not equals or not name.strip():
            raise BadValue(f"'{word.text}' is not key=value", word.offset)
        pairs.append((name.strip(), text.strip()))
    values_[key.field] = tuple(dict.fromkeys(pairs))


_READERS: Mapping[str, Callable[[Values, Key, str, Mapping[str, str]], None]] = {
    "scalar": _read_scalar,
    "list": _read_list,
    "commands": _read_commands,
    "environment": _read_environment,
    "environment-file": _read_environment_file,
    "statuses": _read_statuses,
    "timeouts": _read_timeouts,
    "limit": _read_limit,
    "resource": _read_resource,
    "directory": _read_directory,
    "metadata": _read_metadata,
}


def _service(name: str, found: Values, places: Mapping[str, Setting]) -> Service:
    kind = found.get("type", "simple")
    if kind == "oneshot" and "timeout_start" not in found:
        found["timeout_start"] = values.INFINITY
    if kind == "notify" and found.get("notify_access", "none") == "none":
        found["notify_access"] = "main"
    service = Service(**found)
    if not service.start and not (service.type == "oneshot" or service.remain_after_exit):
        raise UnitFileError("The service has no ExecStart=, so there is nothing to run.", unit=name)
    if not service.start and not service.stop and not service.start_pre:
        raise UnitFileError("The service has neither ExecStart= nor ExecStop=.", unit=name)
    if len(service.start) > 1 and service.type != "oneshot":
        raise _at(name, places["ExecStart"], "A service that is not Type=oneshot has one ExecStart= command only")
    if service.type == "oneshot" and service.restart in ("always", "on-success"):
        reason = f"Type=oneshot does not go with Restart={service.restart}"
        raise _at(name, places["Restart"], reason)
    return service


def _without_effect(service: Service, places: Mapping[str, Setting]) -> list[Notice]:
    """Settings whose key is known and whose value asks for what is not done here."""
    notices = []
    for key, value in (("StandardOutput", service.standard_output), ("StandardError", service.standard_error)):
        if value not in ("journal", "inherit", "syslog"):
            reason = f"{key}={value} has no effect: what the unit prints goes to its journal."
            notices.append(Notice(reason, places[key].line, 1))
    if service.reload:
        reason = "ExecReload= has no effect yet: nothing here asks a unit to reload."
        notices.append(Notice(reason, places["ExecReload"].line, 1))
    return notices


def _fleet(name: str, found: Values, places: Mapping[str, Setting], notices: list[Notice]) -> XFleet:
    fleet = XFleet(**found)
    pinned = fleet.machine_id or fleet.machine_of or fleet.replaces
    if fleet.global_ and pinned:
        key = "MachineID" if fleet.machine_id else ("MachineOf" if fleet.machine_of else "Replaces")
        setting = places.get(key, places["Global"])
        raise _at(name, setting, f"Global=true does not go with {key}=")
    if fleet.replaces and fleet.conflicts and set(fleet.replaces) & set(fleet.conflicts):
        raise _at(name, places["Replaces"], "A unit can't both replace and conflict with the same units")
    for glob in fleet.machine_of:
        try:
            parse_name(glob)
        except UnitError as error:
            notices.append(Notice(f"MachineOf=: {error}", places["MachineOf"].line, 1))
    return fleet


def _at(name: str, setting: Setting, reason: str) -> UnitFileError:
    line, column = setting.place(0)
    return UnitFileError(f"{reason}.", unit=name, line=line, column=column)
