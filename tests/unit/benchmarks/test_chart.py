"""Charts are well-formed SVG whose points lie where they belong."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from benchmarks.chart import BOTTOM, HEIGHT, TOP, Axis, Line, draw, ticks

SVG = "{http://www.w3.org/2000/svg}"
LOG = Axis("clients", True, "{:g}".format)
LINEAR = Axis("1/s", False, "{:g}".format)


def parsed(*lines: Line, x: Axis = LOG, y: Axis = LINEAR) -> ElementTree.Element:
    return ElementTree.fromstring(draw("puts & gets <1>", x, y, lines))


def circles(root: ElementTree.Element, kind: str) -> list[tuple[float, float]]:
    return [(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in root.iter(f"{SVG}circle") if c.get("class") == kind]


def texts(root: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


@pytest.mark.parametrize(
    ("low", "high", "log", "expected"),
    [
        (0, 9_487, False, [0, 2_000, 4_000, 6_000, 8_000, 10_000]),
        (0, 10, False, [0, 2, 4, 6, 8, 10]),
        (0, 0.7, False, [0, 0.2, 0.4, 0.6, 0.8]),
        (0, 0, False, [0, 0.2]),
        (1, 1_000_000, True, [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000]),
        (3, 3, True, [2, 5]),
        (10, 10, True, [10, 20]),
        (1_005, 7_162, True, [1_000, 2_000, 5_000, 10_000]),
        (0.05, 0.4, True, [0.05, 0.1, 0.2, 0.5]),
    ],
)
def test_ticks_are_round_and_hold_all_values(low: float, high: float, log: bool, expected: list[float]) -> None:
    assert ticks(low, high, log) == pytest.approx(expected)


def test_a_log_scale_gives_each_factor_the_same_room() -> None:
    root = parsed(Line("ours", [(1, 10), (100, 1_000), (10, 100)]), y=Axis("ms", True, "{:g}".format))
    (x1, y1), (x2, y2), (x3, y3) = circles(root, "line0")
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
    assert y1 - y2 == pytest.approx(y2 - y3, abs=0.2)
    assert (y1, y3) == (HEIGHT - BOTTOM, TOP)


def test_a_linear_scale_starts_at_zero() -> None:
    root = parsed(Line("ours", [(3, 50), (5, 100)]), x=Axis("members", False, "{:g}".format))
    (_, half), (_, whole) = circles(root, "line0")
    assert whole == TOP
    assert half == pytest.approx((TOP + HEIGHT - BOTTOM) / 2)
    assert "0" in texts(root)


def test_each_line_has_its_own_look_and_its_name_in_the_legend() -> None:
    root = parsed(Line("ours", [(1, 1), (2, 2)]), Line("etcd 3.4 <&>", [(1, 3)]), Line("etcd 3.7", []))
    assert {"ours", "etcd 3.4 <&>", "etcd 3.7", "puts & gets <1>", "clients", "1/s"} <= set(texts(root))
    assert [len(circles(root, f"line{at}")) for at in range(3)] == [2, 1, 0]


def test_a_log_scale_leaves_out_what_it_can_not_show() -> None:
    root = parsed(Line("ours", [(1, 0), (10, 5), (100, float("nan"))]), y=Axis("ms", True, "{:g}".format))
    assert len(circles(root, "line0")) == 1


def test_a_chart_has_text_and_a_dark_scheme_and_no_script() -> None:
    root = parsed(Line("ours", [(1, 1)]))
    assert not list(root.iter(f"{SVG}script"))
    assert "prefers-color-scheme:dark" in (root.findtext(f"{SVG}style") or "")
    assert root.findtext(f"{SVG}title") == "puts & gets <1>"


def test_a_chart_without_points_is_refused() -> None:
    with pytest.raises(ValueError, match="no point"):
        parsed(Line("ours", []))
