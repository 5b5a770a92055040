"""What tests of containers share: one machine for all of a file, and nothing left on it by any of them; and what tests
of the store do: three members that elect quickly, ours beside etcd, an authority for certificates.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.conformance.containers import Machine, running
from tests.conformance.members import OURS, Members, etcd_path


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with running(tmp_path_factory.mktemp("machine")) as made:
        yield made


@pytest.fixture
def nothing_left(machine: Machine) -> Iterator[None]:
    yield
    machine.empty()


@pytest.fixture(params=["ours", "etcd"])
def command(request: pytest.FixtureRequest) -> tuple[str, ...]:
    if request.param == "ours":
        return OURS
    program = etcd_path()
    if program is None:
        pytest.skip("etcd is not here: run make setup")
    return (program,)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Members]:
    members = Members(tmp_path, 3, ["--heartbeat-interval=60", "--election-timeout=600"])
    try:
        members.start()
        yield members
    finally:
        members.close()
