"""Wrong input of every kind, each with its message: no exit code 0, nothing changed in the cluster, no traceback."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cluster.wrong_inputs import CONFIGS, IN_CLUSTER, PROGRAMS, REQUESTS, RUN, UNIT_FILES
from tests.lab import Lab, environment

pytestmark = pytest.mark.lab

AT_ONCE = 3
COMMAND_TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab("badinput", 1) as lab:
        lab.on("m1", "fleetctl", "load", lab.unit_file("good.service", RUN))
        yield lab


def facts(lab: Lab) -> str:
    """All that the cluster was told so far: units, files, machines and their revisions, and the store's members."""
    kinds = [lab.on("m1", "kvctl", "get", "--prefix", f"/fleet/v1/{kind}/", "--json") for kind in ("units", "files")]
    found = [[(kv["key"], kv["mod_revision"]) for kv in json.loads(text)["kvs"]] for text in kinds]
    return json.dumps([found, lab.on("m1", "kvctl", "member", "list"), lab.on("m1", "dock", "images")])


def in_order(words: str, said: str) -> bool:
    """Whether the parts of `words`, parted by `.*`, are said one after the other."""
    at = 0
    return all((at := said.find(part, at)) >= 0 for part in words.split(".*"))


def wrong(code: int, words: str, done: subprocess.CompletedProcess[bytes]) -> str:
    """What is not as it must be, '' when all is."""
    said = (done.stdout + done.stderr).decode(errors="replace")
    if "Traceback" in said:
        return f"a traceback: {said[-400:]}"
    if done.returncode != code or not in_order(words, said):
        return f"wanted {code} and {words!r}, got {done.returncode} and {said[-400:]!r}"
    return ""


def rows(text: str) -> list[tuple[int, str, str]]:
    """The rows of a table."""
    parted = [[word.strip() for word in line.split("|", 2)] for line in text.strip().splitlines()]
    return [(int(code), command, words) for code, command, words in parted]


def check(problems: dict[str, str]) -> None:
    assert not any(problems.values()), "\n".join(f"{what}: {why}" for what, why in problems.items() if why)


def test_unit_files_that_cannot_be_run(lab: Lab) -> None:
    before = facts(lab)

    def tried(name: str) -> str:
        text, words = UNIT_FILES[name]
        path = lab.notes / f"{name}.service"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return wrong(1, f"{path}.*{words}", lab.attempt("m1", "fleetctl", "start", str(path)))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        check(dict(zip(UNIT_FILES, pool.map(tried, UNIT_FILES), strict=True)))
    assert facts(lab) == before


def test_wrong_commands_in_a_cluster(lab: Lab) -> None:
    before = facts(lab)

    def tried(row: tuple[int, str, str]) -> str:
        code, command, words = row
        return wrong(code, words, lab.attempt("m1", *shlex.split(command)))

    table = rows(IN_CLUSTER)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        check(dict(zip([row[1] for row in table], pool.map(tried, table), strict=True)))
    assert facts(lab) == before


def test_wrong_settings_of_programs(lab: Lab) -> None:
    for name, text in CONFIGS.items():
        (lab.notes / name).write_bytes(text.encode(errors="surrogateescape"))
    lone = ("--data-dir", str(lab.notes / "lone"))
    before = facts(lab), sorted(path.name for path in lab.notes.iterdir()), _labs()

    def tried(row: tuple[int, str, str]) -> str:
        code, command, words = row
        argv = shlex.split(command.format(dir=lab.notes, lab=lab.name))
        if argv[0] in ("fleetd", "kvstore") and "--data-dir" not in argv and "gateway" not in argv:
            argv[1:1] = lone
        done = subprocess.run(
            argv,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        return wrong(code, words.replace("{lab}", lab.name), done)

    table = rows(PROGRAMS)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        check(dict(zip([row[1] for row in table], pool.map(tried, table), strict=True)))
    assert (facts(lab), sorted(path.name for path in lab.notes.iterdir()), _labs()) == before


def _labs() -> list[str]:
    """What refused commands may have left of labs."""
    left = [f"/run/fleet-lab/{name}" for name in ("Bad_Name", "Bad_Name.lock", "badhold", "noplace", "nolab")]
    return [path for path in (*left, "/run/up.lock") if Path(path).exists()]


def test_wrong_requests_of_the_api(lab: Lab) -> None:
    before = facts(lab)

    def tried(row: tuple[int, str, str, str, str]) -> str:
        status, method, path, body, words = row
        curl = (
            "curl",
            "-s",
            "-m",
            "10",
            "--unix-socket",
            "/run/fleet.sock",
            "-w",
            " status %{http_code}",
            "-X",
            method,
        )
        send = ("-H", "Content-Type: application/json", "-d", body) if body else ()
        done = lab.attempt("m1", *curl, *send, f"http://fleet{path}")
        return wrong(0, f'"code": {status}.*{words}.*status {status}', done)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        check(
            {f"{row[1]} {row[2]} {row[3]}": why for row, why in zip(REQUESTS, pool.map(tried, REQUESTS), strict=True)}
        )
    assert facts(lab) == before


def test_a_machine_that_is_not_there_is_named(lab: Lab) -> None:
    path = lab.unit_file("elsewhere.service", RUN + "[X-Fleet]\nMachineID=deadbeef\n")
    done = lab.attempt("m1", "fleetctl", "start", path)
    assert not wrong(1, "elsewhere.service is not placed: None of 1 machine will do.*MachineID=deadbeef", done)
    lab.on("m1", "fleetctl", "destroy", "elsewhere")


def test_a_unit_whose_image_is_not_here_is_not_said_to_run(lab: Lab) -> None:
    path = lab.unit_file("imageless.service", "[Service]\nExecStart=/usr/bin/docker run --name i nowhere:1 true\n")
    done = lab.attempt("m1", "fleetctl", "start", path)
    assert not wrong(1, "imageless.service does not run on .*No such image: nowhere:1", done)
    lab.on("m1", "fleetctl", "destroy", "imageless")
