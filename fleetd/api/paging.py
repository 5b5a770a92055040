"""Pages of a collection. The token names the last entity of a page, so a page stays right while others change."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import TypeVar

from aiohttp import web

from fleetd.api.errors import ApiError

PAGE_SIZE = 100
T = TypeVar("T")


def after(request: web.Request) -> str:
    """The last entity of the page before, '' for the first page."""
    if len(request.query.getall("nextPageToken", [])) > 1:
        raise ApiError(400, "invalid value of nextPageToken query parameter")
    return _read(request.query.get("nextPageToken", ""))


def page(request: web.Request, items: Sequence[T], key: Callable[[T], str]) -> tuple[list[T], dict[str, str]]:
    """One page of items, which must be sorted by key, and the field that names the next one."""
    last = after(request)
    rest = [item for item in items if not last or key(item) > last]
    chosen = rest[:PAGE_SIZE]
    if len(rest) <= PAGE_SIZE:
        return chosen, {}
    return chosen, {"nextPageToken": base64.urlsafe_b64encode(key(chosen[-1]).encode()).decode()}


def _read(token: str) -> str:
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError) as error:
        raise ApiError(400, "invalid value of nextPageToken query parameter") from error
