"""The lists: machines, units as they run, unit files as they are wanted."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli.fleetctl.output import choose_fields, place, print_json, short, table
from cli.fleetctl.session import addresses, client, tell_alarm

Full = Annotated[bool, typer.Option("--full", "-l", help="Do not shorten machine ids.")]
NoLegend = Annotated[bool, typer.Option("--no-legend", help="Leave out the headings.")]
Fields = Annotated[str, typer.Option("--fields", help="Columns, parted by commas.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def list_machines(full: Full = False, no_legend: NoLegend = False, fields: Fields = "", json: Json = False) -> None:
    """List the machines of the cluster that live."""
    columns = choose_fields(fields, ("machine", "ip", "metadata"), ("machine", "ip", "metadata"))
    api = client()
    machines = api.machines()
    tell_alarm(api)
    if json:
        print_json(machines)
        return
    rows = [
        {
            "machine": short(machine["id"], full),
            "ip": machine["primaryIP"],
            "metadata": ",".join(f"{k}={v}" for k, v in sorted(machine["metadata"].items())),
        }
        for machine in machines
    ]
    table(columns, rows, legend=not no_legend)


def list_units(full: Full = False, no_legend: NoLegend = False, fields: Fields = "", json: Json = False) -> None:
    """List the units that machines run or try to, with systemd's states."""
    known = ("unit", "machine", "load", "active", "sub", "hash")
    columns = choose_fields(fields, known, ("unit", "machine", "active", "sub"))
    api = client()
    states = api.states() if json else api.fleet_states()
    tell_alarm(api)
    if json:
        print_json(states)
        return
    where = addresses(api)
    rows = [
        {
            "unit": state["name"],
            "machine": place(state["machineID"], where, full),
            "load": state["systemdLoadState"],
            "active": state["systemdActiveState"],
            "sub": state["systemdSubState"],
            "hash": state["hash"] if full else state["hash"][:7],
        }
        for state in sorted(states, key=lambda state: (state["name"], state["machineID"]))
    ]
    table(columns, rows, legend=not no_legend)


def list_unit_files(full: Full = False, no_legend: NoLegend = False, fields: Fields = "", json: Json = False) -> None:
    """List the units of the cluster: what is wanted of each, and what has come of it."""
    known = ("unit", "hash", "dstate", "state", "target", "global", "desc")
    columns = choose_fields(fields, known, ("unit", "hash", "dstate", "state", "target"))
    api = client()
    units = api.units()
    if json:
        print_json(units)
        return
    where = addresses(api)
    table(columns, [_file_row(unit, where, full) for unit in units], legend=not no_legend)


def _option(unit: dict[str, Any], section: str, name: str) -> str:
    found = [o["value"] for o in unit["options"] if (o["section"], o["name"]) == (section, name)]
    return str(found[-1]) if found else ""


def _file_row(unit: dict[str, Any], where: dict[str, str], full: bool) -> dict[str, str]:
    everywhere = _option(unit, "X-Fleet", "Global").lower() in ("1", "yes", "true", "on")
    return {
        "unit": unit["name"],
        "hash": unit["hash"] if full else unit["hash"][:7],
        "dstate": unit["desiredState"],
        "state": "" if everywhere else unit["currentState"],
        "target": "" if everywhere else place(unit["machineID"], where, full),
        "global": str(everywhere).lower(),
        "desc": _option(unit, "Unit", "Description"),
    }


list_machines.examples = "Example:  fleetctl list-machines --full"  # type: ignore[attr-defined]
list_units.examples = "Example:  fleetctl list-units --fields unit,active --no-legend"  # type: ignore[attr-defined]
list_unit_files.examples = "Example:  fleetctl list-unit-files --json"  # type: ignore[attr-defined]
