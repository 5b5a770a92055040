"""Shell completion for every command: `eval "$(_FLEETCTL_COMPLETE=source_bash fleetctl)"`, also for zsh and fish.

The shell's script sets `_<COMMAND>_COMPLETE` when it asks; Typer's answers are loaded then alone, since they cost every
other call some 20 ms.
"""

from __future__ import annotations

import os


def asked(program: str) -> bool:
    """Whether the shell asks `program` for completion; its answers are ready then."""
    if f"_{program.replace('-', '_').upper()}_COMPLETE" not in os.environ:
        return False
    from typer._completion_classes import completion_init

    completion_init()
    return True
