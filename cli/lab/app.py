"""The command fleet-lab: reads its arguments, holds the lab's lock, prints. What it does is in `lab` and `machine`."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import sys
import time
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from cli import completion
from cli.lab import lab as labs
from cli.lab import machine as machines
from cli.lab.lab import Lab
from cli.lab.switch import LabError

READY_POLL_S = 0.05
NAME_VARIABLE = "FLEET_LAB"

app = typer.Typer(
    help="Simulated machines on one host: each runs fleetd for real, in namespaces of its own.",
    epilog="Examples:  fleet-lab up -n 3   |   fleet-lab exec m1 -- date   |   fleet-lab kill m1   |   fleet-lab down",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
Name = Annotated[str, typer.Option("--name", envvar=NAME_VARIABLE, help="Which lab.")]
MachineName = Annotated[str, typer.Argument(metavar="MACHINE", help="A machine: m1, m2 ...")]
PASSING = {"allow_extra_args": True, "ignore_unknown_options": True}


class Losing(Enum):
    """What goes of that which was not synced."""

    all = "all"
    torn = "torn"
    scattered = "scattered"


class Request(Enum):
    """What can fail at a disk."""

    read = "read"
    write = "write"
    sync = "sync"


@app.callback()
def before(
    name: Annotated[str, typer.Option("--name", help="Which lab, for every command; it may stand behind it too.")] = "",
) -> None:
    """Take the lab's name where people write it first."""
    if name:
        os.environ[NAME_VARIABLE] = name  # the default of each command's own --name


@app.command(context_settings=PASSING, epilog="Example:  fleet-lab up -n 3 --hold m3 -- --voters 5")
def up(
    context: typer.Context,
    count: Annotated[int, typer.Option("-n", "--machines", help="How many machines.")] = 3,
    name: Name = "lab",
    folder: Annotated[Path | None, typer.Option("--dir", help="Where the machines' data lies.")] = None,
    daemon: Annotated[str, typer.Option("--daemon", help="Run this command instead of fleetd.")] = "",
    disks: Annotated[
        bool,
        typer.Option("--disks", help="Have the data on disks that lose what was not synced when a machine is killed."),
    ] = False,
    hold: Annotated[list[str] | None, typer.Option("--hold", help="A machine that stays off for now.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the cluster takes units.")] = True,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.")] = 60.0,
) -> None:
    """Make a lab and power its machines on. Arguments after `--` go to every fleetd."""
    if unknown := set(hold or ()) - {f"m{at}" for at in range(1, count + 1)}:
        raise LabError(f"--hold {', '.join(sorted(unknown))}: this lab has m1 to m{count}")
    with labs.lock(name):
        lab = labs.up(name, count, folder, daemon=tuple(shlex.split(daemon)), args=tuple(context.args), disks=disks)
        started = [one for one in lab.machines if one not in (hold or [])]
        for one in started:
            begin = time.monotonic()
            try:
                lab.start(one)
            except OSError as error:
                labs.down(name)
                place = error.filename or lab.dir
                raise LabError(f"{one} has no place for its data: {place}: {error.strerror}; see --dir") from error
            print(f"{one} is on: {lab.machines[one].address}, {time.monotonic() - begin:.2f} s", flush=True)
    if wait and not daemon:
        _wait_ready(lab, started, timeout, formed=not hold)


@app.command(context_settings=PASSING, epilog="Example:  fleet-lab start m4")
def start(
    context: typer.Context,
    machine: MachineName,
    name: Name = "lab",
    address: Annotated[str | None, typer.Option(help="Start it with this address.")] = None,
) -> None:
    """Power a machine on: one that was killed or held, or a new one. Arguments after `--` go to its fleetd."""
    with labs.lock(name):
        lab = Lab.load(name)
        if machine in lab.machines and lab.machine(machine).pid() is not None:
            raise LabError(f"{machine} is on already")
        lab.add(machine, address=address, args=tuple(context.args))
        lab.start(machine)


@app.command(epilog="Example:  fleet-lab kill m1 m2")
def kill(
    those: Annotated[list[str], typer.Argument(metavar="MACHINE...", help="Machines: m1, m2 ...")],
    name: Name = "lab",
    loss: Annotated[
        Losing,
        typer.Option(help="With --disks, of what was not synced: all goes, all but a beginning, or any sectors."),
    ] = Losing.all,
    seed: Annotated[int | None, typer.Option(help="Lets the same go again.")] = None,
) -> None:
    """Cut the power of machines, of all of them in the same instant."""
    with labs.lock(name):
        lab = Lab.load(name)
        chosen = secrets.randbelow(1 << 32) if seed is None else seed
        told = machines.kill(*(lab.machine(one) for one in dict.fromkeys(those)), loss=loss.value, seed=chosen)
    for machine, lost in told.items():
        print(f"{machine}: {lost}" + ("" if loss is Losing.all else f"; --seed {chosen}"))


@app.command(epilog="Example:  fleet-lab disk m1 --eio sync --slow 300")
def disk(
    machine: MachineName,
    name: Name = "lab",
    eio: Annotated[list[Request] | None, typer.Option(help="Let these requests fail; may be repeated.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Have no more room (ENOSPC).")] = False,
    slow: Annotated[int | None, typer.Option(metavar="MILLISECONDS", min=0, help="Let each sync take so long.")] = None,
    well: Annotated[bool, typer.Option("--well", help="Take all that back first.")] = False,
) -> None:
    """Let a machine's disk fail, be full or slow, until it is told otherwise or powered off; then show its state."""
    with labs.lock(name):
        one = Lab.load(name).machine(machine).disk
        try:
            if well:
                one.be_well()
            for request in eio or []:
                one.fail(request.value, "EIO")
            if full:
                one.fail("write", "ENOSPC")
            if slow is not None:
                one.slow(slow)
            print(*(f"{what}={how}" for what, how in one.state().items()))
        except OSError as error:
            raise LabError(f"the disk of {machine} does not answer: {error}") from error


@app.command("exec", context_settings=PASSING, epilog="Example:  fleet-lab exec m1 -- fleetctl list-units")
def execute(context: typer.Context, machine: MachineName, name: Name = "lab") -> None:
    """Run a command inside a machine: `fleet-lab exec m1 -- CMD ARG...`; ends with its exit code."""
    if not context.args:
        raise LabError(f"name a command: fleet-lab exec {machine} -- CMD")
    machines.enter(Lab.load(name).machine(machine), context.args)


@app.command(epilog="Example:  fleet-lab shell m1")
def shell(machine: MachineName, name: Name = "lab") -> None:
    """Open a shell inside a machine."""
    program = "/bin/bash" if Path("/bin/bash").exists() else "/bin/sh"
    machines.enter(Lab.load(name).machine(machine), [program, "-i"])


@app.command("restart-daemon", epilog="Example:  fleet-lab restart-daemon m1")
def restart_daemon(machine: MachineName, name: Name = "lab") -> None:
    """kill -9 of a machine's fleetd alone; its pid 1 starts it again."""
    with labs.lock(name):
        print(machines.restart_daemon(Lab.load(name).machine(machine)))


@app.command("stop-daemon", epilog="Example:  fleet-lab stop-daemon m1 --kill")
def stop_daemon(
    machine: MachineName,
    name: Name = "lab",
    kill_it: Annotated[bool, typer.Option("--kill", help="SIGKILL instead of SIGTERM.")] = False,
) -> None:
    """End a machine's fleetd and leave it off; all that it started lives on."""
    with labs.lock(name):
        machines.stop_daemon(Lab.load(name).machine(machine), kill_it=kill_it)


@app.command("start-daemon", epilog="Example:  fleet-lab start-daemon m1")
def start_daemon(machine: MachineName, name: Name = "lab") -> None:
    """Start a machine's fleetd again after stop-daemon."""
    with labs.lock(name):
        print(machines.start_daemon(Lab.load(name).machine(machine)))


@app.command(epilog="Example:  fleet-lab partition m1 --in")
def partition(
    machine: MachineName,
    name: Name = "lab",
    inward: Annotated[bool, typer.Option("--in", help="Only what goes to the machine is lost.")] = False,
    outward: Annotated[bool, typer.Option("--out", help="Only what comes from the machine is lost.")] = False,
) -> None:
    """Cut a machine off from the others."""
    with labs.lock(name):
        Lab.load(name).partition(machine, "both" if inward == outward else "in" if inward else "out")


@app.command(epilog="Example:  fleet-lab heal m1 m2")
def heal(
    those: Annotated[list[str], typer.Argument(metavar="MACHINE...", help="Machines: m1, m2 ...")], name: Name = "lab"
) -> None:
    """Join machines to the others again, all of them in the same instant."""
    with labs.lock(name):
        Lab.load(name).heal(*those)


@app.command(epilog="Example:  fleet-lab status --json")
def status(name: Name = "lab", as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Show the machines: addresses, pids, client URLs, cuts, and who leads store and engine."""
    from cli.lab import status as states  # what the other commands need not wait for

    found = states.of(Lab.load(name))
    print(json.dumps(found, indent=1) if as_json else states.table(found))


@app.command(epilog="Example:  fleet-lab down --all")
def down(
    name: Name = "lab", every: Annotated[bool, typer.Option("--all", help="Every lab on this host.")] = False
) -> None:
    """Remove a lab with all its data, or what is left of one."""
    for one in labs.names() if every else [name]:
        with labs.lock(one):
            removed = labs.down(one)
        print(f"lab {one} is gone" if removed else f"there is no lab {one!r}")


def _wait_ready(lab: Lab, started: list[str], timeout: float, *, formed: bool) -> None:
    """Until each fleetd answers, and with `formed` until it says that it waits for nothing more."""
    end = time.monotonic() + timeout
    waiting = {one: lab.machine(one) for one in started}
    while waiting := {one: machine for one, machine in waiting.items() if not _is_ready(machine, formed)}:
        if time.monotonic() > end:
            why = "; ".join(f"{one}: {labs.waits_for(machine)}" for one, machine in waiting.items())
            refused = [last for machine in waiting.values() if (last := _last_line(machine.log)).startswith("fleetd: ")]
            why += "".join(f"\n{line}" for line in dict.fromkeys(refused))
            logs = ", ".join(str(machine.log) for machine in waiting.values())
            raise LabError(f"no cluster after {timeout:.0f} s. {why}\nThe logs: {logs}")
        time.sleep(READY_POLL_S)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return lines[-1] if lines else ""


def _is_ready(machine: machines.Machine, formed: bool) -> bool:
    return labs.answers(machine) and not (formed and labs.waits_for(machine))


def main() -> None:
    """Run the command; an error is one sentence and exit code 1."""
    completion.asked("fleet-lab")
    try:
        app()
    except LabError as error:
        print(f"fleet-lab: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
