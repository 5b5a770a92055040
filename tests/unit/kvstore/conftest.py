"""What tests of clients share: a cluster for all of a file, of ours and then of etcd."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.kvstore.members import Cluster


@pytest.fixture(scope="module", params=[True, False], ids=["ours", "etcd"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """As many members as the file says in `MEMBERS`, or one."""
    count = getattr(request.module, "MEMBERS", 1)
    made = Cluster(tmp_path_factory.mktemp("members"), count, ours=request.param)
    yield made
    made.close()
