r"""Words of a value: quotes and C escapes as systemd reads them, each word with its place.

Source: systemd.syntax(7), "QUOTING". It knows nothing of commands or variables.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.units.errors import BadValue

_SIMPLE = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\\": "\\",
    '"': '"',
    "'": "'",
    "s": " ",
}
_DIGITS = {"x": (2, 16), "u": (4, 16), "U": (8, 16)}
_BLANK = " \t\n\r"


@dataclass(frozen=True)
class Word:
    """A word and where it begins; `raw` is as written, so that a quoted `;` is told from a bare one."""

    text: str
    offset: int
    raw: str


def _escape(value: str, at: int, keep_unknown: bool) -> tuple[bytes, int]:
    """Read the escape whose backslash stands at `at`; answer its bytes and the next position."""
    char = value[at + 1 : at + 2]
    if char in _SIMPLE and char:
        return _SIMPLE[char].encode(), at + 2
    if char in _DIGITS:
        width, base = _DIGITS[char]
        digits, start = value[at + 2 : at + 2 + width], at + 2
    elif char and char in "01234567":
        width, base = 3, 8
        digits, start = value[at + 1 : at + 4], at + 1
    else:
        if keep_unknown or char in (";", "$", ""):
            return ("\\" + char).encode(), at + 1 + len(char)
        raise BadValue(f"'\\{char}' is not an escape (write \\\\ for a backslash)", at)
    try:
        code = int(digits, base) if len(digits) == width else -1
    except ValueError:
        code = -1
    if code <= 0 or code > 0x10FFFF or (char not in "uU" and code > 255):
        raise BadValue(f"'\\{char}' wants {width} digits of base {base}, and not zero", at)
    return (chr(code).encode() if char in "uU" else bytes([code])), start + width


def split_words(value: str, *, escapes: bool = True, keep_unknown: bool = False) -> list[Word]:
    """Split at blanks outside quotes. An open quote or a bad escape is a BadValue with its offset."""
    words: list[Word] = []
    index = 0
    while index < len(value):
        if value[index] in _BLANK:
            index += 1
            continue
        start = index
        out = bytearray()
        quote = ""
        quoted_at = 0
        while index < len(value):
            char = value[index]
            if char == "\\" and escapes:
                data, index = _escape(value, index, keep_unknown)
                out += data
                continue
            if quote:
                if char == quote:
                    quote = ""
                else:
                    out += char.encode()
            elif char in "\"'":
                quote, quoted_at = char, index
            elif char in _BLANK:
                break
            else:
                out += char.encode()
            index += 1
        if quote:
            raise BadValue(f"The quote {quote} is never closed", quoted_at)
        words.append(Word(out.decode("utf-8", "surrogateescape"), start, value[start:index]))
    return words
