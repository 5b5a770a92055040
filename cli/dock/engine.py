"""Requests to the Docker Engine API on its unix socket. Small on purpose: a command line must start at once."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlencode

SOCKETS = ("/run/fleetd/docker.sock", "/run/docker.sock")
VERSION = "/v1.41"
CHUNK_BYTES = 64 * 1024
FRAME_HEADER_BYTES = 8
STDERR = 2


class EngineError(Exception):
    """The daemon refused, or is not there; the text is for the user."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)


def _address() -> str:
    host = os.environ.get("DOCKER_HOST", "")
    if host.startswith("unix://"):
        return host.removeprefix("unix://")
    if host:
        raise EngineError(f"DOCKER_HOST={host}: dock speaks to unix:// sockets only")
    return next((path for path in SOCKETS if Path(path).exists()), SOCKETS[0])


def request(
    method: str, path: str, query: dict[str, object] | None = None, body: IO[bytes] | None = None
) -> http.client.HTTPResponse:
    """Ask; a status of 400 and above is an EngineError with the daemon's own message."""
    address = _address()
    connection = _Connection(address)
    target = VERSION + path + (f"?{urlencode(query)}" if query else "")
    headers = {"Content-Type": "application/x-tar", "Transfer-Encoding": "chunked"} if body is not None else {}
    chunks: Iterator[bytes] | None = iter(lambda: body.read(CHUNK_BYTES), b"") if body is not None else None
    try:
        connection.request(method, target, body=chunks, headers=headers, encode_chunked=body is not None)
        answer = connection.getresponse()
    except OSError as error:
        raise EngineError(
            f"Cannot connect to the Docker daemon at unix://{address} ({error.strerror or error}). Is fleetd running?"
        ) from error
    if answer.status >= http.client.BAD_REQUEST:
        text = answer.read().decode(errors="replace")
        try:
            message = str(json.loads(text)["message"])
        except (ValueError, KeyError, TypeError):
            message = text.strip() or answer.reason
        raise EngineError(f"Error response from daemon: {message}")
    return answer


def fetch(path: str, query: dict[str, object] | None = None) -> Any:
    """A GET whose answer is JSON."""
    return json.loads(request("GET", path, query).read())


def name(container: str) -> str:
    """A container's name as part of a path."""
    return quote(container, safe="")


def frames(answer: http.client.HTTPResponse) -> Iterator[tuple[int, bytes]]:
    """A multiplexed stream taken apart: 1 for standard output, 2 for standard error."""
    while header := answer.read(FRAME_HEADER_BYTES):
        if len(header) < FRAME_HEADER_BYTES:
            return
        yield header[0], answer.read(int.from_bytes(header[4:], "big"))
