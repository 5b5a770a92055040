"""Unit files that were read, kept in memory: what is under a digest never changes."""

from __future__ import annotations

from collections import OrderedDict

FILES_KEPT = 1024
"""The others, those that were not asked for for the longest time, are forgotten."""


class Texts:
    """Texts by their sha256."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, str] = OrderedDict()

    def get(self, digest: str) -> str | None:
        """A text that is known."""
        text = self._known.get(digest)
        if text is not None:
            self._known.move_to_end(digest)
        return text

    def keep(self, digest: str, text: str) -> str:
        """Note a text, and answer it."""
        self._known[digest] = text
        if len(self._known) > FILES_KEPT:
            self._known.popitem(last=False)
        return text
