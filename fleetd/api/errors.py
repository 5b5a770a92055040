"""How the API says no: fleet's error entity, one exception, and the middleware that writes it."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from fleetd.registry.keys import RegistryError
from kvstore.errors import StoreError

log = logging.getLogger(__name__)


class ApiError(Exception):
    """An answer of 400 or above; `details` are fields of ours beside code and message."""

    def __init__(self, status: int, message: str, **details: object) -> None:
        self.status = status
        self.message = message
        self.details = details
        super().__init__(message)


def error_body(status: int, message: str, details: dict[str, object] | None = None) -> str:
    """fleet's error entity."""
    return json.dumps({"error": {"code": status, "message": message, **(details or {})}})


def _answer(status: int, message: str, details: dict[str, object] | None = None) -> web.Response:
    return web.Response(status=status, text=error_body(status, message, details), content_type="application/json")


@web.middleware
async def errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Turn exceptions into error entities."""
    try:
        return await handler(request)
    except ApiError as error:
        return _answer(error.status, error.message, error.details)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _answer(error.status, f"{request.method} {request.path}: {error.reason}")
    except StoreError as error:
        return _answer(503, f"The store can't be asked: {error}")
    except RegistryError as error:
        return _answer(500, str(error))
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return _answer(500, "The request failed; fleetd's log says why.")
