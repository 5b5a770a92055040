"""Failures as the Docker API has them: a status and `{"message": ...}`. Only translation."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from agent.containers import failures
from agent.containers.life import Conflict, Invalid, NoContainer
from agent.containers.security import SecurityError
from agent.docker_steps import ContainerFailure
from agent.images.archive import ArchiveError
from agent.images.store import ImageError
from agent.units.errors import BadValue

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ApiError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@web.middleware
async def translate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every failure in Docker's form."""
    try:
        response = await handler(request)
    except (ApiError, ImageError) as error:
        return failure(error.status, str(error))
    except NoContainer as error:
        return failure(404, str(error))
    except Conflict as error:
        return failure(409, str(error))
    except (ArchiveError, SecurityError, BadValue, Invalid) as error:
        return failure(400, str(error))
    except ContainerFailure as error:
        status = 404 if str(error).startswith("No such image") else 400 if error.code in (126, 127) else 500
        return failure(status, str(error))
    except ConnectionError:
        return web.Response()
    except OSError as error:  # a TimeoutError is one
        if request.writer.output_size:
            raise  # amid a stream: all that can be done is to cut it off
        return failure(500, str(failures.of(error)))
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed) as error:
        return failure(error.status, f"{request.method} {request.path}: this daemon does not have that (yet)")
    except web.HTTPException as error:
        return failure(error.status, error.reason.lower())
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        if request.writer.output_size:
            raise
        return failure(500, "the request failed; the daemon's log says why")
    return response


def failure(status: int, message: str) -> web.Response:
    """An error answer."""
    # Docker's client understands an error of exactly this type alone, without a charset.
    body = json.dumps({"message": message}).encode()
    return web.Response(body=body, status=status, headers={"Content-Type": "application/json"})


async def body(request: web.Request) -> dict[str, Any]:
    """The JSON object of a request. Raises ApiError."""
    try:
        found = json.loads(await request.read())
    except ValueError as error:
        raise ApiError(400, f"the request's body is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ApiError(400, "the request's body is no JSON object")
    return found


def filters(request: web.Request) -> dict[str, list[str]]:
    """The query's `filters`: a JSON object of lists, or of objects whose keys count. Raises ApiError."""
    text = request.query.get("filters") or "{}"
    try:
        found = {kind: [str(one) for one in values] for kind, values in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ApiError(400, f"filters={text} is not a JSON object of lists") from error
    return found


def number(request: web.Request, name: str, default: int) -> int:
    """A whole number of the query. Raises ApiError."""
    text = request.query.get(name) or ""
    try:
        return int(text) if text else default
    except ValueError as error:
        raise ApiError(400, f"{name}={text} is not a whole number") from error


def flag(request: web.Request, name: str, default: bool = False) -> bool:
    """A boolean of the query, as Docker reads it."""
    value = request.query.get(name)
    return default if value is None else value.lower() not in ("", "0", "no", "false", "none")
