"""The server command: `kvstore [flags]` is one member, the process itself; `kvstore gateway start` forwards a port."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

from kvstore.bootstrap import discover
from kvstore.flags import FlagError, settings, usage


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a member until SIGTERM or SIGINT. Returns 0 after a clean stop, 1 on failure, 2 on bad flags."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["gateway"]:
        from kvstore import gateway

        return gateway.main(words[1:])
    if any(word in ("-h", "-help", "--help", "help") for word in words):
        print(usage())
        return 0
    try:
        config, warnings = settings(words, os.environ)
    except FlagError as error:
        print(f"kvstore: {error}", file=sys.stderr)
        return 2
    try:
        warnings += discover(config)
    except ValueError as error:
        print(f"kvstore: {error}", file=sys.stderr)
        return 1

    from kvstore import _core

    try:
        return _core.serve(json.dumps(config), warnings)
    except ValueError as error:
        print(f"kvstore: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
