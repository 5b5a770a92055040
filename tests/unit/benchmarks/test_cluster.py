"""Stores that a benchmark starts: loaded, restarted, replaced, and all ended."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.cluster import Cell, Cluster, running
from benchmarks.curves import measure
from benchmarks.curves.plan import Scale
from benchmarks.peers import Peer, ours
from benchmarks.processes import BenchError

TINY = Scale(1, 0.2, 1.0, (100,), (64,), (2,), (1,), (3,), (100,))


def alive(cluster: Cluster) -> list[bool]:
    return [Path(f"/proc/{member.pid}").exists() for member in cluster.members]


def test_members_are_loaded_restarted_and_replaced_and_end(tmp_path: Path) -> None:
    with running([ours()], 3, tmp_path) as [cluster]:
        pids = [member.pid for member in cluster.members]
        filled = cluster.load(Cell("fill", ("fill", "--key-space", "100"), 4))
        assert filled.rate > 0 and 0 < filled.p50 <= filled.p99
        assert cluster.restart() > 0
        assert cluster.replace() > 0
        assert len({member.pid for member in cluster.members} - set(pids)) in (1, 2)
        assert alive(cluster) == [True] * 3
        assert cluster.memory().anonymous > 1 << 20
    assert alive(cluster) == [False] * 3


def test_all_members_end_when_one_can_not_start(tmp_path: Path) -> None:
    broken = Peer("broken", ("/bin/false",))
    began: list[Cluster] = []
    started = Cluster.launch

    def launch(self: Cluster) -> None:
        began.append(self)
        started(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Cluster, "launch", launch)
        with pytest.raises(BenchError, match="/bin/false"), running([ours(), broken], 1, tmp_path):
            pytest.fail("it runs")
    assert [alive(cluster) for cluster in began] == [[False], [False]]


def test_a_load_that_fails_says_whose_it_was(tmp_path: Path) -> None:
    with (
        running([ours()], 1, tmp_path) as [cluster],
        pytest.raises(BenchError, match=r"^ours: kvload nothing .*usage: kvload"),
    ):
        cluster.load(Cell("x", ("nothing",), 1))


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ("members", {"fill": "memory", "put": "rate", "get": "p99"}),
        ("watchers", {"events": "rate", "delivery": "event_p50"}),
    ],
)
def test_a_point_has_samples_of_every_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, curve: str, expected: dict[str, str]
) -> None:
    monkeypatch.setattr(measure, "EVENTS", 300)
    said: list[str] = []
    found, failed = measure.point(curve, TINY.points(curve)[0], [ours()], tmp_path, TINY, said.append)
    assert failed == {}
    assert found.keys() == expected.keys()
    for what, figure in expected.items():
        assert len(found[what][figure]["ours"]) == 1
        assert found[what][figure]["ours"][0] > 0
    assert f"{curve} {TINY.points(curve)[0]}: {list(expected)[-1]}, ours, round 1 of 1" in said


def test_a_store_that_fails_at_a_point_does_not_take_the_others_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    real = Cluster.restart

    def restart(self: Cluster) -> float:
        tried.append(self.peer.name)
        if self.peer.name == "theirs":
            raise BenchError("no")
        return real(self)

    monkeypatch.setattr(Cluster, "restart", restart)
    twice = replace(TINY, rounds=2)
    stores = [ours(), replace(ours(), name="theirs")]
    found, failed = measure.point("kept", 100, stores, tmp_path, twice, lambda _: None)
    assert failed == {"theirs": "restart: no"}
    assert tried == ["ours", "theirs", "ours"]
    assert {what: list(found[what]["seconds"]) for what in found} == {"restart": ["ours"], "catch-up": ["ours"]}
