"""What stands behind `run` or `create` -> Wish: everyday lines by `plain`, all others by the parser that knows every
flag, which is imported for them alone.
"""

from __future__ import annotations

from cli.dock import plain
from cli.dock.wish import UsageError, Wish


def wish_of(words: list[str], verb: str = "run") -> Wish:
    """Read what stands behind `run` or `create`. Raises UsageError."""
    if (found := plain.read(words)) is not None:
        return found
    return read_all(words, verb)


def read_all(words: list[str], verb: str = "run") -> Wish:
    """The same by the parser that knows every flag. Raises UsageError."""
    from agent.units.docker_line import DockerLineError, parse_run_flags
    from cli.dock.body import create_body

    try:
        options = parse_run_flags(words, verb)
        if options.detach:
            streams: frozenset[str] = frozenset()
        elif options.attach:
            streams = frozenset(name.lower() for name in options.attach)
        else:
            streams = frozenset({"stdout", "stderr", *(["stdin"] if options.interactive else [])})
        body = create_body(options, streams)
    except DockerLineError as error:
        raise UsageError(str(error)) from error
    return Wish(
        body,
        image=options.image,
        name=options.name,
        streams=streams,
        detach=options.detach,
        remove=options.remove,
        tty=options.tty,
        signals=options.sig_proxy,
        pull=options.pull,
        cid_file=options.cid_file,
    )
