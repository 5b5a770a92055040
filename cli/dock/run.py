"""`dock run`, `create` and `start`: containers begun, and stayed with. It imports little: it has to begin at once."""

from __future__ import annotations

import os
import sys

from cli.dock import engine
from cli.dock.line import wish_of
from cli.dock.session import Session
from cli.dock.wish import UsageError, Wish

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
        wish = wish_of(words)
        if wish.tty and "stdin" in wish.streams and not os.isatty(0):
            return _say("the input device is not a TTY", 1)
        container = _create(wish)
    except (UsageError, engine.EngineError) as error:
        return _say(error)
    session: Session | None = None
    try:
        if not wish.detach:
            condition = "removed" if wish.remove else "next-exit"
            session = Session(container, wish.streams, terminal=wish.tty, condition=condition, signals=wish.signals)
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
        print(_create(wish_of(words, "create")))
    except (UsageError, engine.EngineError) as error:
        return _say(error, 1)
    return 0


def start(words: list[str]) -> int:
    """`dock start [-a] [-i] CONTAINER...`; with -a or -i the exit code is the container's."""
    if words[:1] in (["--help"], ["-?"]):
        print("Usage: dock start [-a] [-i] CONTAINER...\n\n  Start containers; -a stays with one, -i also feeds it.")
        return 0
    from agent.units.docker_line import DockerLineError, parse_docker_line

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


def _create(wish: Wish) -> str:
    if wish.cid_file and os.path.exists(wish.cid_file):  # noqa: PTH110
        raise UsageError(
            f"container ID file found, make sure the other container isn't running or delete {wish.cid_file}."
        )
    query = {"name": wish.name} if wish.name else None
    if wish.pull == "always":
        engine.order("/images/create", {"fromImage": wish.image})
    try:
        answer = engine.order("/containers/create", query, wish.body)
    except engine.EngineError as error:
        if error.status != 404 or "No such image" not in error.message or wish.pull == "never":
            raise
        image = wish.image if ":" in wish.image.rpartition("/")[2] else f"{wish.image}:latest"
        print(f"Unable to find image '{image}' locally", file=sys.stderr)
        engine.order("/images/create", {"fromImage": wish.image})
        answer = engine.order("/containers/create", query, wish.body)
    for warning in answer.get("Warnings") or ():
        print(f"WARNING: {warning}", file=sys.stderr)
    if wish.cid_file:
        with open(wish.cid_file, "w") as out:
            out.write(answer["Id"])
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
