"""A machine is killed that leads nothing, the store, the engine, or both: its units run elsewhere within 6 s."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.failover import BOUND_S, CASES, Case, measure, settle
from tests.lab import Lab

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab("failover") as lab:
        lab.wait_formed()
        lab.import_busybox()
        settle(lab)
        yield lab


@pytest.mark.parametrize("case", CASES)
def test_units_of_a_killed_machine_run_elsewhere_in_time(lab: Lab, case: Case) -> None:
    if lab.store == "etcd" and case in ("store", "both"):
        pytest.skip("none of the machines leads the store")
    found = measure(lab, case, case)
    print(f"\nfail-over: {found}")
    assert found.worst <= BOUND_S, f"{found}\n{found.trace}"
