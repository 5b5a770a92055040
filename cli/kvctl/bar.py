"""A line on a terminal that fills while something long goes on; nothing where standard error is none."""

from __future__ import annotations

import sys
from collections.abc import Callable

from cli.kvctl import gotext

CELLS = 40


class Bar:
    """Call it with what is done and what there is to do; `shown` writes such a number."""

    def __init__(self, shown: Callable[[int], str] = gotext.size) -> None:
        self._shown = shown
        self._seen = sys.stderr.isatty()
        self._last = ""

    def __call__(self, done: int, every: int) -> None:
        """So far, and in all."""
        share = min(done / every, 1.0) if every else 1.0
        cells = int(share * CELLS)
        line = f"[{'#' * cells}{'.' * (CELLS - cells)}] {share:4.0%} {self._shown(done)} of {self._shown(every)}"
        if self._seen and line != self._last:
            self._last = line
            print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Take the line away."""
        if self._last:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
