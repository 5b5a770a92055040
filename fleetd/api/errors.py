"""How the API says no: fleet's error entity, one exception, and the middleware that writes it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from fleetd.registry.keys import RegistryError
from kvstore.errors import StoreError

log = logging.getLogger(__name__)

Joined = Callable[[], str]
ALONE = ("/fleet/v1/discovery", "/fleetd/v1/status", "/metrics")
"""What a machine can answer without a cluster."""


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


def always() -> str:
    """For a server without forming: the machine is in its cluster."""
    return ""


def errors(joined: Joined) -> Middleware:
    """A middleware that turns exceptions into error entities, and says so while the machine is in no cluster yet."""

    @web.middleware
    async def answered(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if request.path not in ALONE and (why := joined()):
                raise ApiError(503, why)
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

    return answered
