"""The command `dock`: docker's verbs and columns over the machine's Docker Engine API."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import completion
from cli.dock import engine
from cli.output import table

SHORT_ID = 12
UNITS = ("B", "kB", "MB", "GB", "TB")

app = typer.Typer(
    help="Containers of this machine. `dock run` is the stock docker command's for now: DOCKER_HOST points it here.",
    no_args_is_help=True,
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


@app.command("import", epilog="example: dock import rootfs.tar busybox")
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


def request_lines(answer: Any) -> list[dict[str, Any]]:
    """The JSON objects of a progress stream."""
    return [json.loads(line) for line in answer.read().splitlines() if line.strip()]


@app.command()
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


@app.command()
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


@app.command()
def logs(
    container: Annotated[str, typer.Argument(metavar="CONTAINER")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on.")] = False,
    tail: Annotated[str, typer.Option("--tail", "-n", help="How many of the last lines.")] = "all",
) -> None:
    """Print what a container has written."""
    query: dict[str, object] = {"stdout": 1, "stderr": 1, "follow": int(follow), "tail": tail}
    answer = engine.request("GET", f"/containers/{engine.name(container)}/logs", query)
    for stream, data in engine.frames(answer):
        sink = sys.stderr.buffer if stream == engine.STDERR else sys.stdout.buffer
        sink.write(data)
        sink.flush()


@app.command()
def stop(
    containers: Names,
    patience: Annotated[int, typer.Option("--time", "-t", help="Seconds before SIGKILL.")] = 10,
) -> None:
    """Stop containers."""
    for container in containers:
        engine.request("POST", f"/containers/{engine.name(container)}/stop", {"t": patience})
        print(container)


@app.command()
def rm(
    containers: Names,
    force: Annotated[bool, typer.Option("--force", "-f", help="Also while it runs.")] = False,
) -> None:
    """Remove containers."""
    for container in containers:
        engine.request("DELETE", f"/containers/{engine.name(container)}", {"force": int(force)})
        print(container)


def main() -> None:
    """Exit codes: 0 done, 1 refused, 2 wrong usage."""
    completion.asked("dock")
    try:
        app()
    except engine.EngineError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(1)


if __name__ == "__main__":
    main()
