"""The text of a unit file as a list of settings with their places. It knows the syntax, and no key.

Source: systemd.syntax(7).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agent.units.errors import Notice, UnitFileError

LINE_LIMIT = 1024 * 1024
"""Characters of one setting, continuation lines included (systemd's LONG_LINE_MAX)."""


@dataclass(frozen=True)
class Setting:
    """`Key=value` in a section; `places` says where each stretch of the value stands in the file."""

    section: str
    key: str
    value: str
    line: int
    places: tuple[tuple[int, int, int], ...]

    def place(self, offset: int) -> tuple[int, int]:
        """The line and column of a character of the value."""
        index = max(0, bisect_right(self.places, (offset, 1 << 60, 0)) - 1)
        start, line, column = self.places[index]
        return line, column + max(0, offset - start)


@dataclass(frozen=True)
class _Logical:
    text: str
    places: tuple[tuple[int, int, int], ...]


def _logical_lines(text: str) -> Iterator[_Logical]:
    """Join continuation lines (backslash and newline become one space; comments between them are skipped)."""
    pieces: list[str] = []
    places: list[tuple[int, int, int]] = []
    length = 0
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.rstrip("\r")
        if line.lstrip()[:1] in ("#", ";"):
            continue
        places.append((length, number, 1))
        if line.endswith("\\") and not line.endswith("\\\\"):
            pieces.append(line[:-1] + " ")
            length += len(line)
            continue
        yield _Logical("".join([*pieces, line]), tuple(places))
        pieces, places, length = [], [], 0
    if pieces:
        yield _Logical("".join(pieces), tuple(places))


def parse_text(text: str, unit: str = "") -> tuple[tuple[Setting, ...], tuple[Notice, ...]]:
    """Read a unit file. A line that is neither section, setting nor comment is a UnitFileError."""
    settings: list[Setting] = []
    notices: list[Notice] = []
    section = ""
    for logical in _logical_lines(text.removeprefix("\ufeff")):
        line = logical.places[0][1]
        body = logical.text.strip()
        indent = len(logical.text) - len(logical.text.lstrip())
        if not body:
            continue
        if "\x00" in body:
            raise UnitFileError("A NUL character can't stand in a unit file.", unit=unit, line=line, column=1)
        if len(body) > LINE_LIMIT:
            raise UnitFileError(f"The line is longer than {LINE_LIMIT} characters.", unit=unit, line=line, column=1)
        if body.startswith("["):
            if not body.endswith("]") or len(body) < 3:
                raise UnitFileError(f"'{body}' is not a section header.", unit=unit, line=line, column=indent + 1)
            section = body[1:-1]
            continue
        key, equals, value = logical.text.partition("=")
        if not equals or not key.strip():
            reason = f"'{body[:60]}' is neither a section, a setting (Key=value) nor a comment."
            raise UnitFileError(reason, unit=unit, line=line, column=indent + 1)
        if not section:
            notices.append(Notice(f"{key.strip()}= stands before any section and is ignored.", line, indent + 1))
            continue
        start = len(key) + 1 + len(value) - len(value.lstrip())
        settings.append(Setting(section, key.strip(), value.strip(), line, _shift(logical.places, start)))
    return tuple(settings), tuple(notices)


def _shift(places: Sequence[tuple[int, int, int]], start: int) -> tuple[tuple[int, int, int], ...]:
    """The places of what begins `start` characters into a logical line."""
    before = [place for place in places if place[0] <= start]
    offset, line, column = before[-1]
    first = (0, line, column + start - offset)
    return (first, *((at - start, row, col) for at, row, col in places if at > start))


def parse_with_dropins(
    text: str, dropins: Sequence[tuple[str, str]] = (), unit: str = ""
) -> tuple[tuple[Setting, ...], tuple[Notice, ...]]:
    """Read a unit file, then its drop-ins `(file name, text)` in the order of their names."""
    settings, notices = parse_text(text, unit)
    for name, extra in sorted(dropins):
        more, said = parse_text(extra, f"{unit}.d/{name}")
        settings, notices = settings + more, notices + said
    return settings, notices
