"""What every command prints with: tables that line up, errors. Colour only on a terminal."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NoReturn

GAP = "  "


def width(text: str) -> int:
    """Columns of a terminal that a text takes."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(unicodedata.combining(letter) != 0 for letter in text)


def is_text(word: str) -> bool:
    """Whether a word of the command line is UTF-8; Python keeps other bytes as surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in word)


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns that line up, a header first (none when `headers` is empty); a cell that is None or empty is `-`."""
    cells = [["-" if cell is None or cell == "" else str(cell) for cell in row] for row in rows]
    lines = [list(headers), *cells] if headers else cells
    widths = [max(width(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join(
        GAP.join(cell + " " * (wide - width(cell)) for cell, wide in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def red(text: str) -> str:
    """Red where standard error is a terminal and NO_COLOR is not set."""
    return f"\x1b[31m{text}\x1b[0m" if sys.stderr.isatty() and not os.environ.get("NO_COLOR") else text


def fail(message: str, code: int = 1) -> NoReturn:
    """Print an error, a sentence, and exit."""
    print(f"{red('Error:')} {message}", file=sys.stderr)
    sys.exit(code)
