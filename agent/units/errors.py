"""The errors and notices of unit files. Each is a sentence that says where and what."""

from __future__ import annotations

from dataclasses import dataclass


class UnitError(Exception):
    """Anything wrong with a unit: its file, its name, or what it asks for."""


class UnitFileError(UnitError):
    """A unit file that can't be accepted, with the place that is wrong (line and column count from 1)."""

    def __init__(self, reason: str, *, unit: str = "", line: int = 0, column: int = 0) -> None:
        self.reason = reason
        self.unit = unit
        self.line = line
        self.column = column
        place = f"{unit or 'unit file'}:{line}:{column}: " if line else (f"{unit}: " if unit else "")
        super().__init__(f"{place}{reason}")


class BadValue(UnitError):
    """A value that can't be read; `offset` is the character in the value that is wrong."""

    def __init__(self, reason: str, offset: int = 0) -> None:
        self.reason = reason
        self.offset = offset
        super().__init__(reason)


@dataclass(frozen=True)
class Notice:
    """Something in a unit file that is ignored or doubtful, but no reason to refuse it."""

    text: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.text}" if self.line else self.text
