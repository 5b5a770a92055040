"""`dock run`, `create` and `start`: containers begun, and stayed with. It imports little: it has to begin at once."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from agent.units.docker_line import ContainerOptions, DockerLineError, parse_docker_line, parse_run_flags
from cli.dock import engine
from cli.dock.body import create_body
from cli.dock.session import Session

CLIENT_ERROR, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127
USAGE = """\
Usage: dock {verb} [OPTIONS] IMAGE [COMMAND] [ARG...]

  {does}. Options as docker's: -i -t -d --rm --name -e --env-file -v --mount --tmpfs -p -P
  -w -u -h -l -m --memory-swap --cpus --cpu-shares --pids-limit --entrypoint --network bridge|host|none
  --cap-add --cap-drop --security-opt --read-only --privileged --ulimit --stop-signal --cidfile and more.

Exit codes: the container's own, 128+n when signal n ended it; 125 refused, 126 can't be executed, 127 not found.

example: dock run --rm busybox echo hello
"""


def run(words: list[str]) -> int:
    """`dock run`; answer the exit code."""
    if words[:1] in (["--help"], ["-?"]):
        print(USAGE.format(verb="run", does="Make a container, start it and stay with it"), end="")
        return 0
    try:
        options = parse_run_flags(words)
        streams = _streams(options)
        if options.tty and "stdin" in streams and not os.isatty(0):
            return _say("the input device is not a TTY", 1)
        container = _create(options, streams)
    except (DockerLineError, engine.EngineError) as error:
        return _say(error)
    session: Session | None = None
    try:
        if not options.detach:
            condition = "removed" if options.remove else "next-exit"
            session = Session(container, streams, terminal=options.tty, condition=condition, signals=options.sig_proxy)
        engine.order(f"/containers/{container}/start")
    except engine.EngineError as error:
        return _say(error, _start_code(error))
    if session is None:
        print(container)
        return 0
    return session.run()


def create(words: list[str]) -> int:
    """`dock create`: make it, print its id."""
    if words[:1] in (["--help"], ["-?"]):
        print(USAGE.format(verb="create", does="Make a container that `dock start` starts"), end="")
        return 0
    try:
        options = parse_run_flags(words)
        print(_create(options, _streams(options)))
    except (DockerLineError, engine.EngineError) as error:
        return _say(error, 1)
    return 0


def start(words: list[str]) -> int:
    """`dock start [-a] [-i] CONTAINER...`; with -a or -i the exit code is the container's."""
    if words[:1] in (["--help"], ["-?"]):
        print("Usage: dock start [-a] [-i] CONTAINER...\n\n  Start containers; -a stays with one, -i also feeds it.")
        return 0
    try:
        step = parse_docker_line(["docker", "start", *words])
        assert step is not None
        if step.foreground:
            return _start_attached(step.targets[0], interactive=step.interactive)
    except DockerLineError as error:
        return _say(error, 1)
    except engine.EngineError as error:
        return _say(error, 1, program=False)
    code = 0
    for name in step.targets:
        try:
            engine.order(f"/containers/{engine.name(name)}/start")
            print(name)
        except engine.EngineError as error:
            code = _say(error, 1, program=False)
    return code


def _start_attached(name: str, *, interactive: bool) -> int:
    found = engine.fetch(f"/containers/{engine.name(name)}/json")
    config = found["Config"]
    streams = {"stdout", "stderr"} | ({"stdin"} if interactive and config["OpenStdin"] else set())
    if config["Tty"] and "stdin" in streams and not os.isatty(0):
        return _say("the input device is not a TTY", 1)
    condition = "removed" if found["HostConfig"]["AutoRemove"] else "next-exit"
    if found["State"]["Running"] and condition == "next-exit":
        condition = "not-running"
    session = Session(found["Id"], streams, terminal=config["Tty"], condition=condition)
    engine.order(f"/containers/{found['Id']}/start")
    return session.run()


def _streams(options: ContainerOptions) -> frozenset[str]:
    if options.detach:
        return frozenset()
    if options.attach:
        return frozenset(name.lower() for name in options.attach)
    return frozenset({"stdout", "stderr", *(["stdin"] if options.interactive else [])})


def _create(options: ContainerOptions, streams: frozenset[str]) -> str:
    if options.cid_file and Path(options.cid_file).exists():
        raise DockerLineError(
            f"container ID file found, make sure the other container isn't running or delete {options.cid_file}."
        )
    body = create_body(options, streams)
    query = {"name": options.name} if options.name else None
    if options.pull == "always":
        engine.order("/images/create", {"fromImage": options.image})
    try:
        answer = engine.order("/containers/create", query, body)
    except engine.EngineError as error:
        if error.status != 404 or "No such image" not in error.message or options.pull == "never":
            raise
        image = options.image if ":" in options.image.rpartition("/")[2] else f"{options.image}:latest"
        print(f"Unable to find image '{image}' locally", file=sys.stderr)
        engine.order("/images/create", {"fromImage": options.image})
        answer = engine.order("/containers/create", query, body)
    for warning in answer.get("Warnings") or ():
        print(f"WARNING: {warning}", file=sys.stderr)
    if options.cid_file:
        Path(options.cid_file).write_text(answer["Id"])
    return str(answer["Id"])


def _start_code(error: engine.EngineError) -> int:
    """docker's client reads the daemon's sentence for these two."""
    text = error.message.lower()
    if "executable file not found" in text or "no such file or directory" in text:
        return NOT_FOUND
    return NOT_EXECUTABLE if "permission denied" in text or "exec format error" in text else CLIENT_ERROR


def _say(error: object, code: int = CLIENT_ERROR, *, program: bool = True) -> int:
    name = os.path.basename(sys.argv[0]) or "dock"  # noqa: PTH119
    print(f"{name}: {error}" if program else error, file=sys.stderr)
    return code
