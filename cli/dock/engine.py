"""Requests to the Docker Engine API on its unix socket: HTTP/1.1 in few lines, because a command line must start at
once (the standard library's client takes as long to import as everything else here together)."""

from __future__ import annotations

import json
import os
import socket

TYPE_CHECKING = False  # typing's own would import typing, and pathlib costs more than a request
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import IO, Any

SOCKETS = ("/run/fleetd/docker.sock", "/run/docker.sock")
VERSION = "/v1.41"
CHUNK_BYTES = 64 * 1024
FRAME_HEADER_BYTES = 8
FIRST_ERROR_STATUS = 400
STDERR = 2
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/:")


class EngineError(Exception):
    """The daemon refused; the text is for the user. `status` is HTTP's, `message` the daemon's own words."""

    def __init__(self, text: str, status: int = 0, message: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.message = message


class Unreachable(EngineError):
    """The daemon is not there, or went away in the middle of an answer."""


class Answer:
    """What the daemon said, read as it comes. A broken connection is Unreachable."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._held = b""
        self._chunked = False
        self._left: int | None = None
        """Bytes to come of this chunk or body; None: until the connection closes."""
        words = self._line().split(b" ", 2)
        if len(words) < 2 or not words[1].isdigit():
            raise _lost("its answer is no HTTP")
        self.status = int(words[1])
        if self.status in (204, 304):
            self._left = 0
        while line := self._line():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                self._left = int(value)
            elif name.lower() == b"transfer-encoding" and b"chunked" in value.lower():
                self._chunked, self._left = True, 0

    @property
    def held(self) -> bool:
        """Whether bytes have come that were not asked for yet."""
        return bool(self._held)

    def raw(self) -> tuple[socket.socket, bytes]:
        """The connection of an attach, with what has come already."""
        return self.sock, self._held

    def some(self, limit: int = CHUNK_BYTES) -> bytes:
        """What is there, at least a byte; nothing at the end."""
        if self._left == 0:
            if not self._chunked:
                return b""
            line = self._line() or self._line()
            self._left = int(line.partition(b";")[0], 16)
            if self._left == 0:
                self._chunked = False
                return b""
        if not self._held and not self._fill():
            if self._left is not None:
                raise _lost("it went away")
            return b""
        size = min(limit, len(self._held), limit if self._left is None else self._left)
        piece, self._held = self._held[:size], self._held[size:]
        if self._left is not None:
            self._left -= size
        return piece

    def read(self, size: int = -1) -> bytes:
        """This many bytes, or fewer at the end; all for -1."""
        found = b""
        while size < 0 or len(found) < size:
            piece = self.some(CHUNK_BYTES if size < 0 else size - len(found))
            if not piece:
                break
            found += piece
        return found

    def _line(self) -> bytes:
        while b"\r\n" not in self._held:
            if not self._fill():
                raise _lost("it went away")
        line, _, self._held = self._held.partition(b"\r\n")
        return line

    def _fill(self) -> bool:
        try:
            piece = self.sock.recv(CHUNK_BYTES)
        except ConnectionError as error:
            raise _lost(error.strerror or "it went away") from error
        self._held += piece
        return bool(piece)


def address() -> str:
    """The socket: DOCKER_HOST's, else this machine's."""
    host = os.environ.get("DOCKER_HOST", "")
    if host.startswith("unix://"):
        return host.removeprefix("unix://")
    if host:
        raise EngineError(f"DOCKER_HOST={host}: dock speaks to unix:// sockets only")
    return next((path for path in SOCKETS if os.path.exists(path)), SOCKETS[0])  # noqa: PTH110


def _lost(why: str) -> Unreachable:
    return Unreachable(f"Cannot connect to the Docker daemon at unix://{address()} ({why}). Is fleetd running?")


def send(
    method: str,
    path: str,
    query: Mapping[str, object] | None = None,
    body: IO[bytes] | bytes | None = None,
    *,
    upgrade: bool = False,
) -> socket.socket:
    """Send a request and answer the connection, on which nothing was read yet. A stream is sent in chunks."""
    target = (
        VERSION + path + ("?" + "&".join(f"{key}={_quoted(value)}" for key, value in query.items()) if query else "")
    )
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost"]
    if upgrade:
        lines += ["Connection: Upgrade", "Upgrade: tcp"]
    if isinstance(body, bytes):
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    elif body is not None:
        lines += ["Content-Type: application/x-tar", "Transfer-Encoding: chunked"]
    elif method == "POST":
        lines.append("Content-Length: 0")
    head = "".join(f"{line}\r\n" for line in [*lines, ""]).encode()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(address())
        sock.sendall(head + body if isinstance(body, bytes) else head)
        if body is not None and not isinstance(body, bytes):
            _upload(sock, body)
    except OSError as error:
        sock.close()
        raise _lost(error.strerror or str(error)) from error
    return sock


def _upload(sock: socket.socket, body: IO[bytes]) -> None:
    try:
        while piece := body.read(CHUNK_BYTES):
            sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        sock.sendall(b"0\r\n\r\n")
    except (BrokenPipeError, ConnectionResetError):
        return  # the daemon has said no before the end: its answer tells why


def request(
    method: str,
    path: str,
    query: Mapping[str, object] | None = None,
    body: IO[bytes] | bytes | None = None,
    *,
    upgrade: bool = False,
) -> Answer:
    """Ask; a status of 400 and above is an EngineError with the daemon's own message."""
    return checked(Answer(send(method, path, query, body, upgrade=upgrade)))


def checked(answer: Answer) -> Answer:
    """The answer, unless it is an error."""
    if answer.status < FIRST_ERROR_STATUS:
        return answer
    text = answer.read().decode(errors="replace")
    try:
        message = str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        message = text.strip() or f"status {answer.status}"
    raise EngineError(f"Error response from daemon: {message}", answer.status, message)


def fetch(path: str, query: Mapping[str, object] | None = None) -> Any:
    """A GET whose answer is JSON."""
    return json.loads(request("GET", path, query).read())


def order(path: str, query: Mapping[str, object] | None = None, body: object = None) -> Any:
    """A POST; answers the JSON of the answer, None when it has no body."""
    text = request("POST", path, query, None if body is None else json.dumps(body).encode()).read()
    return json.loads(text) if text.strip() else None


def name(container: str) -> str:
    """A container's or image's name as part of a path."""
    return _quoted(container)


def _quoted(text: object) -> str:
    return "".join(chr(one) if one in _PLAIN else f"%{one:02X}" for one in str(text).encode(errors="surrogateescape"))


def frames(answer: Answer) -> Iterator[tuple[int, bytes]]:
    """A multiplexed stream taken apart: 1 for standard output, 2 for standard error."""
    while len(header := answer.read(FRAME_HEADER_BYTES)) == FRAME_HEADER_BYTES:
        yield header[0], answer.read(int.from_bytes(header[4:], "big"))
