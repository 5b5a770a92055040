"""The commands that look into one unit: its file, its status, its journal."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from cli.fleetctl.output import Failure, place, print_json, warn
from cli.fleetctl.session import addresses, client, known_units, matching, unit_name
from cli.fleetctl.waiting import describe
from fleetd.api.client import ApiClient, ClientError

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
STATUS_LINES = 10
NOT_ACTIVE = 3
"""systemctl's exit code for a unit that is not active."""
NO_UNIT = 4


def _file(api: ApiClient, name: str) -> dict[str, Any]:
    stored = api.unit_file(name)
    if stored is None:
        raise Failure(f"Unit {name} not found.")
    return stored


def cat(unit: Annotated[str, typer.Argument(metavar="UNIT", autocompletion=matching)], json: Json = False) -> None:
    """Print a unit's file as it was submitted."""
    stored = _file(client(), unit_name(unit))
    if json:
        print_json(stored)
        return
    print(stored["text"], end="" if stored["text"].endswith("\n") else "\n")


def status(
    units: Annotated[list[str], typer.Argument(metavar="UNIT...", autocompletion=matching)], json: Json = False
) -> None:
    """Say what units are doing, and why; exit code 3 when one is not active."""
    api = client()
    explained = []
    for name in known_units(api, units):
        try:
            explained.append(api.explain(name))
        except ClientError as error:
            if error.status != 404:
                raise
            raise Failure(f"Unit {name} not found.", NO_UNIT) from error
    active = all(any(s["active"] == "active" for s in unit["states"]) for unit in explained)
    if json:
        print_json(explained)
    else:
        where = addresses(api)
        for index, unit in enumerate(explained):
            if index:
                print()
            _print_status(api, unit, where)
    if not active:
        raise SystemExit(NOT_ACTIVE)


def _print_status(api: ApiClient, unit: dict[str, Any], where: dict[str, str]) -> None:
    name = unit["name"]
    print(f"● {name}")
    print(f"  Wanted: {unit['desired']}")
    if unit["reason"]:
        print(f"  Reason: {unit['reason']}")
    for machine in unit["machines"]:
        if not any(state["machine"] == machine for state in unit["states"]):
            print(f" Machine: {place(machine, where, full=True)} (nothing reported yet)")
    for state in unit["states"]:
        print(f"  Loaded: {state['load']}")
        since = time.strftime("%a %Y-%m-%d %H:%M:%S %Z", time.localtime(state["since"])) if state["since"] else ""
        print(f"  Active: {describe(state)}" + (f" Since {since}." if since else ""))
        print(f" Machine: {place(state['machine'], where, full=True)}")
        if state["main_pid"]:
            print(f"Main PID: {state['main_pid']}")
    try:
        lines = list(api.journal(name, STATUS_LINES, follow=False))
    except ClientError as error:
        warn(f"The journal of {name} can't be read: {error}")
        return
    if lines:
        print()
    for line in lines:
        _print_line(name, line, "short")


def journal(
    unit: Annotated[str, typer.Argument(metavar="UNIT", autocompletion=matching)],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on, from machine to machine.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines; 0: all.")] = 10,
    output: Annotated[str, typer.Option("--output", help="short, or cat for the text alone.")] = "short",
    json: Json = False,
) -> None:
    """Print what a unit has written, wherever it runs."""
    if output not in ("short", "cat"):
        raise Failure(f"--output {output}: use short or cat.")
    name = unit_name(unit)
    for line in client().journal(name, lines, follow):
        _print_line(name, line, "json" if json else output)


def _print_line(unit: str, line: dict[str, Any], output: str) -> None:
    if output == "json":
        import json

        print(json.dumps(line, ensure_ascii=False), flush=True)
    elif line.get("note"):
        print(f"-- {line['note']} --", flush=True)
    elif output == "cat":
        print(line["text"], flush=True)
    else:
        when = time.strftime("%b %d %H:%M:%S", time.localtime(line["time_ns"] / 1e9))
        source = unit.rsplit(".", 1)[0]
        print(f"{when} {line.get('machine', '')[:8]} {source}: {line['text']}", flush=True)


cat.examples = "Example:  fleetctl cat hello"  # type: ignore[attr-defined]
status.examples = "Example:  fleetctl status hello"  # type: ignore[attr-defined]
journal.examples = "Example:  fleetctl journal -f --lines 100 hello"  # type: ignore[attr-defined]
