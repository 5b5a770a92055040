"""The commands that change what is wanted of units."""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated, Any

import typer

from agent.units.names import parse_name
from cli.fleetctl.files import find_text, local_file, read
from cli.fleetctl.output import Failure, place, print_json, warn
from cli.fleetctl.session import addresses, client, is_glob, known_units, matching, unit_name
from cli.fleetctl.waiting import Goal, wait_for
from fleetd.api.client import ApiClient

Units = Annotated[
    list[str], typer.Argument(help="Unit names, files, or globs.", metavar="UNIT...", autocompletion=matching)
]
NoBlock = Annotated[bool, typer.Option("--no-block", help="Do not wait for the units.")]
Attempts = Annotated[
    int, typer.Option("--block-attempts", min=0, help="Wait so many half seconds; 0: as long as it takes.")
]
Replace = Annotated[bool, typer.Option("--replace", help="Use the file here even if the cluster has another one.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _create(api: ApiClient, words: list[str], desired: Goal, replace: bool) -> list[str]:
    """Make sure that the cluster has units, and want them in a state; their names. Nothing is changed when one can't
    be read."""
    words = _expand(api, words)
    known = api.files() if words else {}
    wanted: dict[str, dict[str, Any]] = {}
    for word in words:
        name = unit_name(word)
        if name not in known:
            text, _ = find_text(api, word)
            wanted[name] = {"name": name, "desiredState": desired, "text": text}
            continue
        wanted[name] = {"name": name, "desiredState": desired}
        path = local_file(word)
        if path is not None and path.name == name:
            text = read(api, name, path)
            if sha256(text.encode()).hexdigest() == known[name]:
                continue
            if replace:
                wanted[name] |= {"text": text, "replace": True}
            else:
                warn(f"WARNING: {name} in the cluster differs from the file {path}; use --replace to take the file.")
    api.put_units([unit for unit in wanted.values() if "text" in unit or desired != "inactive"])
    return list(wanted)


def _expand(api: ApiClient, words: list[str]) -> list[str]:
    """Words as they are, globs as the cluster's units that they match, but for templates, which run nowhere."""
    expanded: list[str] = []
    for word in words:
        if not is_glob(word):
            expanded.append(word)
            continue
        expanded += [name for name in known_units(api, [word]) if parse_name(name).instance != ""]
    return list(dict.fromkeys(expanded))


def _wait(api: ApiClient, names: list[str], goal: Goal, no_block: bool, attempts: int, json: bool) -> None:
    results: list[dict[str, str]] = []
    failed: list[str] = []
    where = addresses(api) if not no_block or json else {}

    def done(name: str, machine: str) -> None:
        results.append({"unit": name, "state": goal, "machine": machine})
        if not json:
            target = place(machine, where or {}, full=False)
            print(f"Unit {name} {goal}" + (f" on {target}" if target else ""), flush=True)

    def trouble(name: str, why: str) -> None:
        results.append({"unit": name, "state": "", "machine": "", "why": why})
        failed.append(name)
        warn(why)

    if no_block:
        for name in names:
            results.append({"unit": name, "state": "", "machine": ""})
            if not json:
                print(f"Triggered unit {name} {_VERBS[goal]}")
    else:
        wait_for(api, names, goal, attempts, done, trouble)
    if json:
        print_json(results)
    if failed:
        raise SystemExit(1)


_VERBS: dict[str, str] = {"launched": "start", "loaded": "load", "inactive": "unload"}


def submit(units: Units, replace: Replace = False, json: Json = False) -> None:
    """Put units into the cluster without starting them."""
    api = client()
    names = _create(api, units, "inactive", replace)
    if json:
        print_json([{"unit": name, "state": "inactive"} for name in names])
        return
    for name in names:
        print(f"Unit {name} inactive")


def load(
    units: Units, replace: Replace = False, no_block: NoBlock = False, block_attempts: Attempts = 0, json: Json = False
) -> None:
    """Put units on machines without starting them."""
    api = client()
    names = _create(api, units, "loaded", replace)
    _wait(api, names, "loaded", no_block, block_attempts, json)


def start(
    units: Units, replace: Replace = False, no_block: NoBlock = False, block_attempts: Attempts = 0, json: Json = False
) -> None:
    """Start units, and wait until they run; say why one does not."""
    api = client()
    names = _create(api, units, "launched", replace)
    _wait(api, names, "launched", no_block, block_attempts, json)


def _stoppable(api: ApiClient, words: list[str]) -> list[str]:
    """The units that words name and that are on machines, or are to be: a stop puts no unit onto one. Of those that a
    glob matches the others are left out."""
    names, desired = _existing(api, words), api.desired()
    idle = {name for name in names if desired.get(name) == "inactive"}
    named = idle & {unit_name(word) for word in words if not is_glob(word)}
    if named:
        raise Failure(f"Unable to stop unit {min(named)} in state inactive.")
    return [name for name in names if name not in idle]


def _existing(api: ApiClient, units: list[str]) -> list[str]:
    names = known_units(api, units)
    missing = set(names) - set(api.names())
    if missing:
        raise Failure(f"No such unit in the cluster: {', '.join(sorted(missing))}.")
    return names


def stop(units: Units, no_block: NoBlock = False, block_attempts: Attempts = 0, json: Json = False) -> None:
    """Stop units, which stay on their machines."""
    api = client()
    names = _stoppable(api, units)
    api.put_units([{"name": name, "desiredState": "loaded"} for name in names])
    _wait(api, names, "loaded", no_block, block_attempts, json)


def unload(units: Units, no_block: NoBlock = False, block_attempts: Attempts = 0, json: Json = False) -> None:
    """Stop units and take them from their machines; the cluster keeps their files."""
    api = client()
    names = _existing(api, units)
    api.put_units([{"name": name, "desiredState": "inactive"} for name in names])
    _wait(api, names, "inactive", no_block, block_attempts, json)


def destroy(units: Units, json: Json = False) -> None:
    """Stop units and forget them."""
    api = client()
    names = _existing(api, units)
    for name in names:
        api.delete_unit(name)
        if not json:
            print(f"Destroyed {name}", flush=True)
    if json:
        print_json([{"unit": name, "state": "destroyed"} for name in names])


submit.examples = "Example:  fleetctl submit hello.service"  # type: ignore[attr-defined]
load.examples = "Example:  fleetctl load web@1 web@2"  # type: ignore[attr-defined]
start.examples = "Example:  fleetctl start ./hello.service   |   fleetctl start web@1 web@2"  # type: ignore[attr-defined]
stop.examples = "Example:  fleetctl stop 'web@*'"  # type: ignore[attr-defined]
unload.examples = "Example:  fleetctl unload hello"  # type: ignore[attr-defined]
destroy.examples = "Example:  fleetctl destroy 'web@*'"  # type: ignore[attr-defined]
