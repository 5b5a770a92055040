"""The command `dock` (and `docker` inside units): which verb is meant. The frequent ones import little."""

from __future__ import annotations

import os
import sys

from cli import completion
from cli.dock import engine

PIPE_CODE = 141
_ALIASES = {
    ("container", "ls"): "ps",
    ("image", "ls"): "images",
    ("image", "rm"): "rmi",
    ("image", "inspect"): "inspect",
}


def main() -> None:
    """Exit codes: 0 done, 1 refused, 2 wrong usage; of `run`, `start -a` and `wait` see there."""
    words = sys.argv[1:]
    if words[:1] in (["container"], ["image"]) and len(words) > 1:
        verb = _ALIASES.get((words[0], words[1]), words[1])
        words = [verb, *words[2:]]
    try:
        if not completion.asked("dock") and words[:1] in (["run"], ["create"], ["start"]):
            from cli.dock import run

            code: int = getattr(run, words[0])(words[1:])
            sys.stdout.flush()
            os._exit(code)  # nothing is left to tidy up: the interpreter's own farewell takes 5 ms
        from cli.dock.verbs import app

        app(words)
    except engine.EngineError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(PIPE_CODE)


if __name__ == "__main__":
    main()
