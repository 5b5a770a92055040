"""A small synchronous client of the API for command lines: HTTP/1.1 over a unix socket or TCP, one connection a
request, imports kept few so that a command answers at once. It knows no command's output.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

DEFAULT_ENDPOINT = "unix:///run/fleet.sock"
FLEET_PORT = 49153
"""fleet's own TCP port."""
CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 30.0
"""Also the longest silence of a stream; the server sends a line every 15 s."""

BODY_BYTES = 1_000_000
BODY_UNITS = 2_000
"""What of unit files goes into one request."""


class ClientError(Exception):
    """The API can't be reached, or answered with an error; `status` is 0 for the former."""

    def __init__(self, message: str, status: int = 0) -> None:
        self.status = status
        super().__init__(message)


class _Answer:
    """The answer to one request; reading it to its end closes the connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._file = connection.makefile("rb")
        self._connection = connection
        words = self._file.readline().split(None, 2)
        if len(words) < 2:
            raise ClientError("fleetd closed the connection without an answer.")
        self.status = int(words[1])
        self.headers: dict[str, str] = {}
        while (line := self._file.readline().strip()) != b"":
            name, _, value = line.decode("latin-1").partition(":")
            self.headers[name.lower()] = value.strip()

    def close(self) -> None:
        self._file.close()
        self._connection.close()

    def chunks(self) -> Iterator[bytes]:
        """The body in pieces, as it comes."""
        if self.headers.get("transfer-encoding", "") == "chunked":
            while size := int(self._file.readline() or b"0", 16):
                yield self._file.read(size)
                self._file.readline()
        elif "content-length" in self.headers:
            yield self._file.read(int(self.headers["content-length"]))
        elif self.status not in (204, 304):
            yield self._file.read()


class ApiClient:
    """Asks a fleetd. `endpoint` is unix:///path or http://host:port."""

    def __init__(self, endpoint: str = DEFAULT_ENDPOINT) -> None:
        wrong = ClientError(f"The endpoint '{endpoint}' is neither unix:///PATH nor http://HOST:PORT.")
        try:
            parts = urlsplit(endpoint)
            self._port = parts.port or FLEET_PORT
        except ValueError as error:
            raise wrong from error
        if parts.scheme not in ("unix", "http", "") or not (parts.netloc if parts.scheme == "http" else parts.path):
            raise wrong
        self._endpoint = endpoint
        self._parts = parts

    def _connect(self) -> socket.socket:
        try:
            if self._parts.scheme == "http":
                address = (self._parts.hostname or "127.0.0.1", self._port)
                connection = socket.create_connection(address, CONNECT_TIMEOUT_S)
            else:
                connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                connection.settimeout(CONNECT_TIMEOUT_S)
                connection.connect(self._parts.path)
        except OSError as error:
            raise ClientError(
                f"fleetd does not answer on {self._endpoint}: {error.strerror or error}. Is it running here?"
            ) from error
        connection.settimeout(ANSWER_TIMEOUT_S)
        return connection

    def _ask(self, method: str, path: str, body: Any = None) -> _Answer:
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: fleet\r\nConnection: close\r\n"
        if body is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
        connection = self._connect()
        try:
            connection.sendall(head.encode() + b"\r\n" + data)
            answer = _Answer(connection)
        except (OSError, ValueError) as error:
            connection.close()
            raise ClientError(f"fleetd on {self._endpoint} did not answer: {error}.") from error
        if answer.status >= 400:
            text = b"".join(answer.chunks())
            answer.close()
            raise ClientError(_message(self._endpoint, answer.status, text), answer.status)
        return answer

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """Ask once; the parsed answer, or None when it has no body."""
        answer = self._ask(method, path, body)
        try:
            text = b"".join(answer.chunks())
        except (OSError, ValueError) as error:
            raise ClientError(f"fleetd's answer broke off: {error}.") from error
        finally:
            answer.close()
        return json.loads(text) if text else None

    def stream(self, path: str) -> Iterator[dict[str, Any]]:
        """The objects of a stream, as they come; the server's signs of life are left out."""
        answer = self._ask("GET", path)
        rest = b""
        try:
            for chunk in answer.chunks():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    if event.get("kind") != "alive":
                        yield event
        except (OSError, ValueError) as error:
            raise ClientError(f"The stream from fleetd broke off: {error}.") from error
        finally:
            answer.close()

    def _pages(self, path: str, field: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        token = ""
        while True:
            page = self.request("GET", path + (f"?nextPageToken={quote(token)}" if token else ""))
            items.extend(page[field])
            token = page.get("nextPageToken", "")
            if not token:
                return items

    def machines(self) -> list[dict[str, Any]]:
        """The machines that live."""
        return self._pages("/fleet/v1/machines", "machines")

    def units(self) -> list[dict[str, Any]]:
        """All units."""
        return self._pages("/fleet/v1/units", "units")

    def names(self) -> list[str]:
        """The names of all units."""
        return list(self.request("GET", "/fleetd/v1/names")["names"])

    def files(self) -> dict[str, str]:
        """The sha256 of every unit's file, by the unit's name."""
        answer = self.request("GET", "/fleetd/v1/names")
        return dict(zip(answer["names"], answer["files"], strict=True))

    def desired(self) -> dict[str, str]:
        """What is wanted of every unit: inactive, loaded or launched."""
        answer = self.request("GET", "/fleetd/v1/names")
        return dict(zip(answer["names"], answer["desired"], strict=True))

    def states(self) -> list[dict[str, Any]]:
        """All reported states, in full."""
        return list(self.request("GET", "/fleetd/v1/states")["states"])

    def fleet_states(self) -> list[dict[str, Any]]:
        """All reported states as fleet has them, with the hash of the file."""
        return self._pages("/fleet/v1/state", "states")

    def unit_file(self, name: str) -> dict[str, Any] | None:
        """A unit's text, hash and desired state; None when there is no such unit."""
        try:
            return dict(self.request("GET", f"/fleetd/v1/files/{quote(name, safe='')}"))
        except ClientError as error:
            if error.status == 404:
                return None
            raise

    def put_unit(self, name: str, desired: str, text: str | None = None, replace: bool = False) -> None:
        """Create a unit, or change what is wanted of it."""
        body: dict[str, Any] = {"desiredState": desired}
        if text is not None:
            body |= {"text": text, "replace": replace}
        self.request("PUT", f"/fleet/v1/units/{quote(name, safe='')}", body)

    def put_units(self, units: list[dict[str, Any]]) -> None:
        """Create units, or change what is wanted of them: {"name", "desiredState", "text"?, "replace"?} each."""
        batch: list[dict[str, Any]] = []
        size = 0
        for unit in units:
            length = len(unit.get("text", ""))
            if batch and (size + length > BODY_BYTES or len(batch) == BODY_UNITS):
                self.request("POST", "/fleetd/v1/units", {"units": batch})
                batch, size = [], 0
            batch.append(unit)
            size += length
        if batch:
            self.request("POST", "/fleetd/v1/units", {"units": batch})

    def delete_unit(self, name: str) -> None:
        """Forget a unit."""
        self.request("DELETE", f"/fleet/v1/units/{quote(name, safe='')}")

    def explain(self, name: str) -> dict[str, Any]:
        """Why a unit is in its state."""
        return dict(self.request("GET", f"/fleetd/v1/explain/{quote(name, safe='')}"))

    def alarm(self) -> str:
        """Why the engine holds units where they are; empty when it does not."""
        return str(self.request("GET", "/fleetd/v1/status").get("alarm") or "")

    def events(self, units: list[str]) -> Iterator[dict[str, Any]]:
        """What is, then {"kind": "now"}, then what happens to these units."""
        query = "&".join(f"unit={quote(unit, safe='')}" for unit in units)
        return self.stream(f"/fleetd/v1/events?{query}")

    def journal(self, name: str, lines: int, follow: bool) -> Iterator[dict[str, Any]]:
        """The lines of a unit."""
        query = f"lines={lines}&follow={'true' if follow else 'false'}"
        return self.stream(f"/fleetd/v1/journal/{quote(name, safe='')}?{query}")


def _message(endpoint: str, status: int, text: bytes) -> str:
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{endpoint} answered with HTTP status {status}, which is not fleetd's way: does fleetd listen there?"
