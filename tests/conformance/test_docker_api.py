"""The Docker API as an SDK sees it: statuses, and a sentence for each wrong request."""

from __future__ import annotations

import json

import pytest

from tests.conformance.containers import Machine, ask, requires

pytestmark = [*requires, pytest.mark.usefixtures("nothing_left")]
CREATE = "/containers/create"
WRONG: list[tuple[int, str, str, object, str]] = [
    (400, "POST", CREATE, {}, "the container's Image is missing"),
    (400, "POST", CREATE, [], "the request's body is no JSON object"),
    (400, "POST", CREATE, {"Image": 5}, "the container's image can't be read: Input should be a valid string"),
    (400, "POST", CREATE, {"Image": "busybox"}, "no command specified"),
    (400, "POST", f"{CREATE}?name=a%20b", {"Image": "busybox", "Cmd": ["true"]}, "Invalid container name (a b)"),
    (400, "POST", CREATE, {"Image": "busybox", "Cmd": ["true"], "HostConfig": [1]}, "description can't be read"),
    (
        400,
        "POST",
        CREATE,
        {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Memory": "lots"}},
        "container's memory",
    ),
    (400, "POST", CREATE, {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Binds": ["a:b"]}}, "absolute path"),
    (404, "POST", CREATE, {"Image": "nowhere", "Cmd": ["true"]}, "No such image: nowhere:latest"),
    (400, "GET", "/containers/json?limit=x", None, "limit=x is not a whole number"),
    (400, "GET", "/containers/json?filters=x", None, "filters=x is not a JSON object of lists"),
    (400, "GET", "/containers/json?filters=[]", None, "filters=[] is not a JSON object of lists"),
    (400, "GET", '/containers/json?all=1&filters={"odd":["x"]}', None, "invalid filter 'odd'"),
    (400, "GET", "/containers/made/logs", None, "you must choose at least one stream"),
    (400, "GET", "/containers/made/logs?stdout=1&since=x", None, "since=x is not a time in seconds since 1970"),
    (400, "POST", "/containers/made/resize?h=x", None, "h=x is not a whole number"),
    (400, "POST", "/containers/made/restart?t=x", None, "t=x is not a whole number"),
    (400, "POST", "/containers/made/kill?signal=NOPE", None, "'NOPE' is not a signal"),
    (400, "POST", "/containers/made/wait?condition=x", None, 'invalid condition: "x"'),
    (404, "GET", "/containers/nobody/json", None, "No such container: nobody"),
    (400, "POST", "/images/busybox/tag", None, "repo= is missing"),
    (404, "GET", "/nowhere", None, "GET /nowhere: this daemon does not have that"),
    (404, "GET", "/containers/made/changes", None, "/containers/made/changes: this daemon does not have that"),
    (405, "PUT", "/containers/json", None, "PUT /containers/json: this daemon does not have that"),
]
"""Status, method, path, body, and what the message must say."""


def test_wrong_requests_are_refused_with_a_sentence(machine: Machine) -> None:
    made = machine.dock("create", "--name", "made", "busybox", "sleep", "100").stdout.strip()
    for status, method, path, body, words in WRONG:
        answer = ask(machine, method, path.replace('"', "%22"), body)
        said = json.loads(answer.read())["message"]
        assert (answer.status, words in said) == (status, True), (method, path, body, answer.status, said)
    assert machine.dock("ps", "-aq").stdout.split() == [made[:12]]


def test_the_api_answers_as_dockers_does(machine: Machine) -> None:
    missing = ask(machine, "POST", "/v1.41/containers/create", {"Image": "x"})
    assert (missing.status, json.loads(missing.read())) == (404, {"message": "No such image: x:latest"})
    container = json.loads(
        ask(machine, "POST", "/v1.41/containers/create", {"Image": "busybox", "Cmd": ["sleep", "100"]}).read()
    )["Id"]
    waiting = ask(machine, "POST", f"/v1.41/containers/{container}/wait?condition=next-exit")
    assert waiting.status == 200  # the headers are here, though it was not even started
    assert ask(machine, "POST", f"/v1.41/containers/{container}/start").status == 204
    assert ask(machine, "POST", f"/v1.41/containers/{container}/start").status == 304
    assert ask(machine, "DELETE", f"/v1.41/containers/{container}").status == 409
    assert ask(machine, "POST", f"/v1.41/containers/{container}/kill").status == 204
    assert json.loads(waiting.read()) == {"StatusCode": 137}
    assert ask(machine, "POST", f"/v1.41/containers/{container}/kill").status == 409
    assert ask(machine, "GET", "/v1.41/containers/nobody/json").status == 404
    assert ask(machine, "GET", "/_ping").read() == b"OK"
    assert ask(machine, "DELETE", f"/v1.41/containers/{container}").status == 204


def test_what_has_no_effect_is_said(machine: Machine) -> None:
    line = "create --link a:b --device /dev/fuse --group-add 5 --init --health-cmd true --restart always busybox true"
    wanted = ["--link", "--device", "--group-add", "--health-*", "--init", "--restart=always"]
    for client in ("dock", "docker"):
        said = machine.client(client, *line.split()).stderr.splitlines()
        assert said == [f"WARNING: {flag} is not supported yet and has no effect." for flag in wanted], client
    assert machine.docker("create", "busybox", "true").stderr == ""
