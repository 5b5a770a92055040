"""Failures as the Docker API has them: a status and `{"message": ...}`. Only translation."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from aiohttp import web

from agent.containers import failures
from agent.containers.life import Conflict, NoContainer
from agent.containers.security import SecurityError
from agent.docker_steps import ContainerFailure
from agent.images.archive import ArchiveError
from agent.images.store import ImageError
from agent.units.errors import BadValue

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
    except (ArchiveError, SecurityError, BadValue, KeyError, ValueError) as error:
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
    except web.HTTPNotFound:
        return failure(404, "page not found")
    except web.HTTPMethodNotAllowed:
        return failure(405, "method not allowed")
    return response


def failure(status: int, message: str) -> web.Response:
    """An error answer."""
    # Docker's client understands an error of exactly this type alone, without a charset.
    body = json.dumps({"message": message}).encode()
    return web.Response(body=body, status=status, headers={"Content-Type": "application/json"})


def flag(request: web.Request, name: str, default: bool = False) -> bool:
    """A boolean of the query, as Docker reads it."""
    value = request.query.get(name)
    return default if value is None else value.lower() not in ("", "0", "no", "false", "none")
