"""Ids and names of containers: an unnamed one gets two words."""

from __future__ import annotations

import re
import secrets
from collections.abc import Container

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]+\Z")
_FIRST = (
    "amber brave calm clear eager early fair fast fond gentle glad golden keen kind lively lucky merry mild neat noble"
)
_FIRST += " plain proud quick quiet ready rosy sharp silver smooth steady sunny swift tidy warm wise young"
_SECOND = "anchor badger beacon birch breeze brook canyon cedar comet coral crane delta falcon fern finch forest garnet"
_SECOND += " glacier harbor heron island lantern maple meadow orchid otter pebble pine prairie raven reef river robin"
_SECOND += " sparrow summit thicket tulip valley willow"
FIRST, SECOND = _FIRST.split(), _SECOND.split()


def new_id() -> str:
    """64 hexadecimal digits."""
    return secrets.token_hex(32)


def new_name(taken: Container[str]) -> str:
    """Two words that no container here has; with a number when chance does not find any."""
    for _ in range(50):
        name = f"{secrets.choice(FIRST)}_{secrets.choice(SECOND)}"
        if name not in taken:
            return name
    return f"{secrets.choice(FIRST)}_{secrets.choice(SECOND)}_{secrets.token_hex(4)}"
