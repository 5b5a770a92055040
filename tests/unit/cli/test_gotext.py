"""Go's ways of writing, against what Go writes."""

from __future__ import annotations

import pytest

from cli.kvctl import gotext

MIN = -(2**63)


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("plain", '"plain"'),
        ('a"b\\c', r'"a\"b\\c"'),
        ("\a\b\f\n\r\t\v", r'"\a\b\f\n\r\t\v"'),
        ("\0\x1f\x7f", r'"\x00\x1f\x7f"'),
        ("\u00e9\u4f60", '"\u00e9\u4f60"'),
        ("\u00a0\u200b\u2028", r'"\u00a0\u200b\u2028"'),
        ("\U000e0001", r'"\U000e0001"'),
        (b"\xff\xc3".decode(errors="surrogateescape"), r'"\xff\xc3"'),
    ],
)
def test_texts_in_quotes(text: str, quoted: str) -> None:
    assert gotext.quote(text) == quoted
    assert gotext.unquote(quoted) == text


def test_quotes_are_read_as_go_reads_them() -> None:
    assert gotext.unquote(r'"\101\x41\u0041\U00000041\'"') == "AAAA'"
    assert gotext.unquote("`a\\n\rb`") == "a\\nb"
    with pytest.raises(gotext.GoTextError):
        gotext.unquote(r'"\q"')


def test_words_of_a_line() -> None:
    assert gotext.split("""put  "two words" 'it''s' --x=1 "a\\"b\"""") == [
        "put",
        "two words",
        "it",
        "s",
        "--x=1",
        'a"b',
    ]


@pytest.mark.parametrize(
    ("text", "base", "number"),
    [
        ("0x10", 0, 16),
        ("010", 0, 8),
        ("-5", 10, -5),
        ("+5", 10, 5),
        ("ff", 16, 255),
        ("-9223372036854775808", 10, -(2**63)),
    ],
)
def test_numbers(text: str, base: int, number: int) -> None:
    assert gotext.integer(text, base=base) == number


@pytest.mark.parametrize(
    ("text", "base", "signed", "error"),
    [
        ("x", 10, True, 'strconv.ParseInt: parsing "x": invalid syntax'),
        ("", 16, False, 'strconv.ParseUint: parsing "": invalid syntax'),
        ("-1", 16, False, 'strconv.ParseUint: parsing "-1": invalid syntax'),
        ("1_0", 10, True, 'strconv.ParseInt: parsing "1_0": invalid syntax'),
        ("\u0661", 10, True, 'strconv.ParseInt: parsing "\u0661": invalid syntax'),
        ("9223372036854775808", 10, True, 'strconv.ParseInt: parsing "9223372036854775808": value out of range'),
    ],
)
def test_what_is_no_number(text: str, base: int, signed: bool, error: str) -> None:
    with pytest.raises(gotext.GoTextError) as raised:
        gotext.integer(text, base=base, signed=signed)
    assert str(raised.value) == error


@pytest.mark.parametrize(("text", "value"), [("1m30s", 90.0), ("500ms", 0.5), ("1.5h", 5400.0), ("2", 2.0), ("0", 0.0)])
def test_times(text: str, value: float) -> None:
    assert gotext.seconds(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "5x", "s", "1s2", "-1s"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(gotext.GoTextError):
        gotext.seconds(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0s"),
        (12e-9, "12ns"),
        (1.5e-6, "1.5\u00b5s"),
        (0.003250001, "3.250001ms"),
        (1.0, "1s"),
        (60.5, "1m0.5s"),
        (3661.0, "1h1m1s"),
    ],
)
def test_durations(value: float, text: str) -> None:
    assert gotext.duration(value) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (9, "9 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (20480, "20 kB"),
        (9999, "10 kB"),
        (5_300_000, "5.3 MB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert gotext.size(count) == text
