"""Which of many globs match a name, without trying them all: globs are filed under their text before the first
wildcard, and a name looks only under its own beginnings.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

WILD = "*?["


def stem(glob: str) -> str:
    """The text of a glob before its first wildcard."""
    for index, char in enumerate(glob):
        if char in WILD:
            return glob[:index]
    return glob


class GlobIndex:
    """A multiset of globs."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._by_stem: dict[str, list[str]] = {}
        self._lengths: dict[int, int] = {}

    def __contains__(self, glob: str) -> bool:
        return glob in self._counts

    def add(self, glob: str) -> bool:
        """Add a glob; True when it is new."""
        self._counts[glob] = self._counts.get(glob, 0) + 1
        if self._counts[glob] > 1:
            return False
        beginning = stem(glob)
        self._by_stem.setdefault(beginning, []).append(glob)
        self._lengths[len(beginning)] = self._lengths.get(len(beginning), 0) + 1
        return True

    def remove(self, glob: str) -> bool:
        """Take a glob out once; True when it is gone."""
        self._counts[glob] -= 1
        if self._counts[glob]:
            return False
        del self._counts[glob]
        beginning = stem(glob)
        self._by_stem[beginning].remove(glob)
        if not self._by_stem[beginning]:
            del self._by_stem[beginning]
        self._lengths[len(beginning)] -= 1
        if not self._lengths[len(beginning)]:
            del self._lengths[len(beginning)]
        return True

    def matches(self, name: str) -> list[str]:
        """The globs that match a name."""
        found = []
        for length in self._lengths:
            for glob in self._by_stem.get(name[:length], ()) if length <= len(name) else ():
                if glob == name or fnmatchcase(name, glob):
                    found.append(glob)
        return found
