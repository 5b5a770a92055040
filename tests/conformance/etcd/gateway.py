"""The JSON gateway, as a client without any library sees it."""

from __future__ import annotations

import http.client
import json
from typing import Any

from tests.conformance.etcd.steps import Post

TIMEOUT_S = 10.0
MALFORMED = ("proto:", "invalid character", "json:", "illegal base64")
"""How texts begin that tell what is wrong with JSON: its words are the parser's own, and so are each etcd's."""


def posted(address: str, step: Post, body: str, headers: dict[str, str]) -> dict[str, Any]:
    """Status, kind and data of an answer; of a stream the first lines, then the client goes away."""
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT_S)
    try:
        connection.request(step.method, step.path, body.encode(), headers)
        answer = connection.getresponse()
        told = {"status": answer.status, "type": answer.headers["Content-Type"]}
        if challenge := answer.headers["WWW-Authenticate"]:
            told["challenge"] = challenge
        if step.lines:
            return told | {"lines": [data_of(answer.readline()) for _ in range(step.lines)]}
        return told | {"data": data_of(answer.read())}
    except OSError as error:
        return {"stuck": repr(error)}
    finally:
        connection.close()


def data_of(raw: bytes) -> Any:
    """JSON as data, anything else as text."""
    text = raw.decode()
    try:
        data = json.loads(text)
    except json.JSONDecodeError:
        return text
    if isinstance(data, dict):
        # Etcd until 3.5 tells an error twice.
        if data.get("error") == data.get("message", ""):
            del data["error"]
        if str(data.get("message", "")).startswith(MALFORMED):
            data["message"] = "<malformed>"
    return data
