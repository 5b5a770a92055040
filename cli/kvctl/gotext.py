"""Go's ways of reading and writing numbers, times, sizes and quoted texts, which etcd's client shows its user."""

from __future__ import annotations

import re

_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
_ESCAPES |= {"\\": "\\\\", '"': '\\"'}
_UNESCAPES = {escape[1]: letter for letter, escape in _ESCAPES.items()} | {"'": "'"}
_SIZES = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "\u00b5s": 1e-6, "\u03bcs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)")
_WORD = re.compile(r"""\"(?:[^"\\]|\\.)*\"|'[^']*'|[^'"\s]\S*[^'"\s]?""")
QUOTED = re.compile(r'"(?:[^"\\\n]|\\.)*"|`[^`]*`')
"""A quoted text as Go has them."""


class GoTextError(ValueError):
    """A text is not what it should be; the words are Go's own."""


def quote(text: str) -> str:
    """As `%q` prints a text."""
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(letter: str) -> str:
    if letter in _ESCAPES:
        return _ESCAPES[letter]
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if letter.isprintable():
        return letter
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def unquote(text: str) -> str:
    """The text that was quoted. Raises GoTextError."""
    if text.startswith("`"):
        return text[1:-1].replace("\r", "")
    out = bytearray()
    at = 1
    while at < len(text) - 1:
        if text[at] != "\\":
            out += text[at].encode(errors="surrogateescape")
            at += 1
            continue
        at = _unescape(text, at + 1, out)
    return out.decode(errors="surrogateescape")


def _unescape(text: str, at: int, out: bytearray) -> int:
    letter = text[at]
    if letter in _UNESCAPES:
        out += _UNESCAPES[letter].encode()
        return at + 1
    for pattern, base, skip in (("x[0-9a-fA-F]{2}", 16, 1), ("[0-7]{3}", 8, 0)):
        if match := re.compile(pattern).match(text, at):
            out.append(int(match[0][skip:], base) & 0xFF)
            return match.end()
    if match := re.compile("u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}").match(text, at):
        out += chr(int(match[0][1:], 16)).encode()
        return match.end()
    raise GoTextError("invalid syntax")


def split(line: str) -> list[str]:
    """The words of a line, which may stand in quotes."""
    return [_bare(word) for word in _WORD.findall(line)]


def _bare(word: str) -> str:
    return word[1:-1] if word.startswith("'") else unquote(word) if word.startswith('"') else word


def integer(text: str, *, base: int = 10, signed: bool = True) -> int:
    """A number of 64 bits; with base 0, one that says its base itself (0x1f, 017). Raises GoTextError."""
    name = "ParseInt" if signed else "ParseUint"
    digits = {10: "[0-9]+", 16: "[0-9a-fA-F]+", 0: "0[xX][0-9a-fA-F]+|0[oO]?[0-7]+|0[bB][01]+|[1-9][0-9]*|0"}[base]
    match = re.fullmatch(f"({'[+-]?' if signed else ''})({digits})", text)
    if match is None:
        raise GoTextError(f"strconv.{name}: parsing {quote(text)}: invalid syntax")
    number = re.sub("^0(?=[0-7]+$)", "0o", match[2]) if base == 0 else match[2]
    value = int(number, base) * (-1 if match[1] == "-" else 1)
    low, high = (-(2**63), 2**63 - 1) if signed else (0, 2**64 - 1)
    if not low <= value <= high:
        raise GoTextError(f"strconv.{name}: parsing {quote(text)}: value out of range")
    return value


def seconds(text: str) -> float:
    """`1m30s`, `500ms`; a number alone is seconds. Raises GoTextError."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise GoTextError(f"time: invalid duration {quote(text)}")
    return float(sum(float(number) * _SECONDS[unit] for number, unit in parts))


def duration(value: float) -> str:
    """Seconds as Go prints a time.Duration: 1.5s, 3.25ms, 1m0.5s."""
    nanoseconds = round(value * 1e9)
    if nanoseconds == 0:
        return "0s"
    for unit, size in (("ns", 1), ("\u00b5s", 1000), ("ms", 1_000_000)):
        if nanoseconds < size * 1000:
            return _decimal(nanoseconds, size) + unit
    whole, rest = divmod(nanoseconds, 1_000_000_000)
    minutes, left = divmod(whole, 60)
    text = _decimal(left * 1_000_000_000 + rest, 1_000_000_000) + "s"
    if minutes:
        text = f"{minutes % 60}m{text}"
    return f"{minutes // 60}h{text}" if minutes >= 60 else text


def _decimal(value: int, size: int) -> str:
    whole, part = divmod(value, size)
    digits = f"{part:0{len(str(size)) - 1}d}".rstrip("0") if size > 1 else ""
    return f"{whole}.{digits}" if digits else str(whole)


def size(count: int) -> str:
    """Bytes in powers of 1000, one decimal below ten."""
    if count < 10:
        return f"{count} B"
    value, power = float(count), 0
    while value >= 1000 and power < len(_SIZES) - 1:
        value, power = value / 1000, power + 1
    value = int(value * 10 + 0.5) / 10
    return f"{value:.1f} {_SIZES[power]}" if value < 10 else f"{value:.0f} {_SIZES[power]}"


def not_executed(program: str, error: OSError) -> str:
    """Why a program did not start."""
    if "/" in program:
        return f"fork/exec {program}: {(error.strerror or str(error)).lower()}"
    return f"exec: {quote(program)}: executable file not found in $PATH"
