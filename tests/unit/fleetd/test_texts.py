"""Unit files in memory: their number is bounded, and what is asked for stays."""

from __future__ import annotations

from fleetd.registry.texts import FILES_KEPT, Texts


def test_what_nobody_asks_for_is_forgotten_first() -> None:
    texts = Texts()
    for number in range(FILES_KEPT):
        assert texts.keep(f"{number}", f"text {number}") == f"text {number}"
    assert texts.get("0") == "text 0"
    texts.keep("new", "text")
    assert (texts.get("0"), texts.get("1"), texts.get("new")) == ("text 0", None, "text")
