"""The verbs of `dock` that need no speed: lists, logs, orders. Docker's words and columns."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from agent.units.docker_options import span
from agent.units.errors import BadValue
from cli.dock import engine, run
from cli.output import table

SHORT_ID = 12
Words = Annotated[list[str] | None, typer.Argument(metavar="[OPTIONS] ...")]
UNITS = ("B", "kB", "MB", "GB", "TB")

app = typer.Typer(
    help="Containers and images of this machine, with docker's verbs. DOCKER_HOST=unix:///path names another socket.",
    epilog="Examples:  dock run --rm -p 8080:80 web   |   dock ps -a   |   dock logs -f web",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Names = Annotated[list[str], typer.Argument(metavar="CONTAINER...")]


def size(count: float) -> str:
    """1234567 -> 1.23MB, as docker prints it."""
    for unit in UNITS:
        if count < 1000 or unit == UNITS[-1]:
            return f"{count:.3g}{unit}"
        count /= 1000
    raise AssertionError("unreachable: the last unit returns")


def ago(seconds: float) -> str:
    """90061 -> 25 hours."""
    for length, word in ((604_800, "week"), (86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {word}s"
    return f"{max(int(seconds), 0)} seconds"


def _short(identity: str) -> str:
    return identity.removeprefix("sha256:")[:SHORT_ID]


def _split(tag: str) -> tuple[str, str]:
    name, _, label = tag.rpartition(":")
    return (name, label) if name else (tag, "latest")


@app.command("import", epilog="Example:  dock import rootfs.tar busybox")
def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A tar of a root file system; '-' reads it from stdin.")],
    repository: Annotated[str, typer.Argument(metavar="[REPOSITORY[:TAG]]")] = "",
) -> None:
    """Make an image of a tar."""
    name, tag = _split(repository) if repository else ("", "")
    query: dict[str, object] = {"fromSrc": "-", "repo": name, "tag": tag}
    if file == "-":
        answer = engine.request("POST", "/images/create", query, sys.stdin.buffer)
    else:
        try:
            with Path(file).open("rb") as body:
                answer = engine.request("POST", "/images/create", query, body)
        except OSError as error:
            raise engine.EngineError(f"{file}: {error.strerror}") from error
    for line in request_lines(answer):
        if "error" in line:
            raise engine.EngineError(str(line["error"]))
        print(line.get("status", ""))


def request_lines(answer: engine.Answer) -> list[dict[str, Any]]:
    """The JSON objects of a progress stream."""
    return [json.loads(line) for line in answer.read().splitlines() if line.strip()]


@app.command(epilog="Example:  dock load -i busybox.tar")
def load(
    input_: Annotated[str, typer.Option("--input", "-i", metavar="FILE", help="Read it from here, not stdin.")] = "-",
) -> None:
    """Take the images of an archive of `docker save`."""
    if input_ == "-":
        answer = engine.request("POST", "/images/load", {}, sys.stdin.buffer)
    else:
        try:
            with Path(input_).open("rb") as body:
                answer = engine.request("POST", "/images/load", {}, body)
        except OSError as error:
            raise engine.EngineError(f"open {input_}: {(error.strerror or str(error)).lower()}") from error
    for line in request_lines(answer):
        if "error" in line:
            raise engine.EngineError(str(line["error"]))
        print(line.get("stream", ""), end="")


@app.command(epilog="Example:  dock rmi web:old")
def rmi(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...")],
    force: Annotated[bool, typer.Option("--force", "-f", help="Also with several names, or stopped users.")] = False,
) -> None:
    """Remove images."""

    def remove(image: str) -> None:
        answer = engine.request("DELETE", f"/images/{engine.name(image)}", {"force": int(force)})
        for item in json.loads(answer.read()):
            for action, what in item.items():
                print(f"{action}: {what}")

    _each(images, remove, quiet=True)


@app.command(epilog="Example:  dock tag web web:old")
def tag(image: str, name: str) -> None:
    """Give an image one more name."""
    repository, label = _split(name)
    engine.order(f"/images/{engine.name(image)}/tag", {"repo": repository, "tag": label})


def _each(names: list[str], work: Callable[[str], object], *, quiet: bool = False) -> None:
    """Do something with every one, say what failed, and go on; exit code 1 if anything did."""
    failed = False
    for name in names:
        try:
            work(name)
        except engine.Unreachable:
            raise
        except engine.EngineError as error:
            print(error, file=sys.stderr)
            failed = True
        else:
            if not quiet:
                print(name)
    if failed:
        raise typer.Exit(1)


@app.command(epilog="Example:  dock images --json")
def images(json_: Json = False) -> None:
    """List images."""
    found = engine.fetch("/images/json")
    if json_:
        print(json.dumps(found))
        return
    rows = []
    for image in found:
        for tag in image.get("RepoTags") or ["<none>:<none>"]:
            name, label = _split(tag)
            created = f"{ago(time.time() - image['Created'])} ago"
            rows.append((name, label, _short(image["Id"]), created, size(image["Size"])))
    print(table(("REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"), rows))


@app.command(epilog="Example:  dock ps -a")
def ps(
    all_: Annotated[bool, typer.Option("--all", "-a", help="Also those that do not run.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Ids alone.")] = False,
    json_: Json = False,
) -> None:
    """List containers."""
    found = engine.fetch("/containers/json", {"all": int(all_)})
    if json_:
        print(json.dumps(found))
        return
    if quiet:
        for one in found:
            print(_short(one["Id"]))
        return
    rows = []
    for one in found:
        command = one["Command"] if len(one["Command"]) <= 20 else one["Command"][:19] + "…"
        ports = ", ".join(_port(port) for port in one.get("Ports") or [])
        created = f"{ago(time.time() - one['Created'])} ago"
        name = ", ".join(each.lstrip("/") for each in one["Names"])
        rows.append((_short(one["Id"]), one["Image"], f'"{command}"', created, one["Status"], ports, name))
    print(table(("CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"), rows))


def _port(port: dict[str, Any]) -> str:
    inside = f"{port['PrivatePort']}/{port['Type']}"
    return f"{port.get('IP', '0.0.0.0')}:{port['PublicPort']}->{inside}" if port.get("PublicPort") else inside


@app.command(epilog="Example:  dock logs -f --tail 10 web")
def logs(
    container: Annotated[str, typer.Argument(metavar="CONTAINER")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it ends.")] = False,
    tail: Annotated[str, typer.Option("--tail", "-n", help="How many of the last lines.")] = "all",
    since: Annotated[str, typer.Option("--since", help="From then on: seconds since 1970, or 10m ago.")] = "",
    timestamps: Annotated[bool, typer.Option("--timestamps", "-t", help="With the time of each line.")] = False,
) -> None:
    """Print what a container has written."""
    path = f"/containers/{engine.name(container)}"
    query: dict[str, object] = {"stdout": 1, "stderr": 1, "follow": int(follow), "tail": tail}
    query |= {"timestamps": int(timestamps), "since": _moment(since)}
    terminal = engine.fetch(f"{path}/json")["Config"]["Tty"]
    answer = engine.request("GET", f"{path}/logs", query)
    pieces = ((1, piece) for piece in iter(answer.some, b"")) if terminal else engine.frames(answer)
    for stream, data in pieces:
        sink = sys.stderr.buffer if stream == engine.STDERR else sys.stdout.buffer
        sink.write(data)
        sink.flush()


def _moment(text: str) -> str:
    if not text or text.replace(".", "", 1).isdigit():
        return text
    try:
        return f"{time.time() - span(text):.9f}"
    except BadValue as error:
        raise engine.EngineError(f'invalid value for "since": {error}') from error


@app.command(epilog="Example:  dock inspect web")
def inspect(
    names: Annotated[list[str], typer.Argument(metavar="NAME...")],
    format_: Annotated[str, typer.Option("--format", "-f", help="One value: {{.State.ExitCode}}.")] = "",
) -> None:
    """Print all about containers or images, as JSON."""
    found, failed = [], False
    for name in names:
        try:
            found.append(_inspected(name))
        except engine.Unreachable:
            raise
        except engine.EngineError:
            print(f"Error: No such object: {name}", file=sys.stderr)
            failed = True
    if not format_:
        print(json.dumps(found, indent=4))
    for item in found if format_ else ():
        print(re.sub(r"\{\{\s*\.?([\w.]*)\s*\}\}", partial(_filled, item), format_))
    if failed:
        raise typer.Exit(1)


def _inspected(name: str) -> Any:
    try:
        return engine.fetch(f"/containers/{engine.name(name)}/json")
    except engine.EngineError as error:
        if error.status != 404:
            raise
        return engine.fetch(f"/images/{engine.name(name)}/json")


def _filled(item: Any, match: re.Match[str]) -> str:
    return _value(item, match[1])


def _value(item: Any, path: str) -> str:
    for part in filter(None, path.split(".")):
        if not isinstance(item, dict) or part not in item:
            raise engine.EngineError(f'Template parsing error: there is no "{part}" in .{path}')
        item = item[part]
    return item if isinstance(item, str) else json.dumps(item)


@app.command(epilog="Example:  dock stop -t 5 web")
def stop(
    containers: Names,
    patience: Annotated[int | None, typer.Option("--time", "-t", help="Seconds before SIGKILL (10).")] = None,
) -> None:
    """Stop containers."""
    query = {} if patience is None else {"t": patience}
    _each(containers, lambda name: engine.order(f"/containers/{engine.name(name)}/stop", query))


@app.command(epilog="Example:  dock kill -s HUP web")
def kill(
    containers: Names,
    signal: Annotated[str, typer.Option("--signal", "-s", help="Which signal.")] = "KILL",
) -> None:
    """Send a signal to containers."""
    _each(containers, lambda name: engine.order(f"/containers/{engine.name(name)}/kill", {"signal": signal}))


@app.command(epilog="Example:  dock wait web")
def wait(containers: Names) -> None:
    """Wait until containers end, and print their exit codes."""

    def ended(name: str) -> None:
        print(engine.order(f"/containers/{engine.name(name)}/wait")["StatusCode"], flush=True)

    _each(containers, ended, quiet=True)


@app.command(epilog="Example:  dock rm -f web")
def rm(
    containers: Names,
    force: Annotated[bool, typer.Option("--force", "-f", help="Also while it runs.")] = False,
    volumes: Annotated[bool, typer.Option("--volumes", "-v", help="With its unnamed volumes.")] = False,
) -> None:
    """Remove containers."""

    def remove(name: str) -> None:
        try:
            engine.request("DELETE", f"/containers/{engine.name(name)}", {"force": int(force), "v": int(volumes)})
        except engine.EngineError as error:
            if error.status == 404 and force:
                print(error, file=sys.stderr)
                return
            raise

    _each(containers, remove)


def _elsewhere(verb: str) -> Callable[[Words], None]:
    def begin(words: Words = None) -> None:
        raise typer.Exit(getattr(run, verb)(list(words or ())))

    begin.__doc__ = {
        "run": "Make a container, start it and stay with it.",
        "create": "Make a container.",
        "start": "Start containers; -a stays with one.",
    }[verb]
    return begin


for _verb in ("run", "create", "start"):
    app.command(_verb, context_settings={"ignore_unknown_options": True})(_elsewhere(_verb))
