"""The store of real machines under Debian's etcdctl: puts and watches everywhere, and a voter replaced by hand."""

from __future__ import annotations

import select
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen

import pytest

from tests.lab import Lab, until
from tests.storelab import Load, Stores, said, stopped

pytestmark = pytest.mark.lab

PUTS = 20
WATCH_TIMEOUT_S = 120
CHANGE_TIMEOUT_S = 90.0


@pytest.fixture(scope="module")
def stores() -> Iterator[Stores]:
    with Lab("labstore", 3) as lab:
        lab.wait_formed()
        yield Stores(lab)


def lines_of(process: Popen[bytes], count: int) -> list[str]:
    """The first lines that a command prints, waited for."""
    assert process.stdout is not None
    end, text = time.monotonic() + WATCH_TIMEOUT_S, b""
    while text.count(b"\n") < count:
        ready, _, _ = select.select([process.stdout], [], [], max(end - time.monotonic(), 0))
        assert ready, f"{text.count(bytes([10]))} of {count} lines after {WATCH_TIMEOUT_S} s"
        got = process.stdout.read1(65536)  # type: ignore[attr-defined]
        assert got, text.decode()
        text += got
    return text.decode().splitlines()


def test_every_machine_sees_the_puts_of_every_machine_in_one_order(stores: Stores) -> None:
    stores.calm()
    next_revision = str(max(one.revision for one in stores.states().values()) + 1)
    watches = {
        name: stores.lab.popen(
            name,
            *("timeout", str(WATCH_TIMEOUT_S)),
            *stores.ctl_words(name, "watch", "--prefix", "seen/", f"--rev={next_revision}"),
        )
        for name in stores.urls
    }
    loop = "for i in $(seq {count}); do {put} seen/{name}/$i $i || exit 1; done; echo done"
    putting = {
        name: stores.lab.popen(
            name, "sh", "-c", loop.format(count=PUTS, name=name, put=" ".join(stores.ctl_words(name, "put")))
        )
        for name in stores.urls
    }
    for name, process in putting.items():
        assert process.communicate(timeout=WATCH_TIMEOUT_S)[0].decode().endswith("done\n"), name
    seen = {name: lines_of(process, 3 * PUTS * len(stores.urls)) for name, process in watches.items()}
    for process in watches.values():
        process.kill()
    kept = stores.contents("m1", "seen/")
    order = [line for key in sorted(kept, key=lambda key: kept[key].revision) for line in ("PUT", key, kept[key].value)]
    for name, lines in seen.items():
        assert lines == order, f"{name} saw another order"
    for name in stores.urls:
        mine = [key for key in order if key.startswith(f"seen/{name}/")]
        assert mine == [f"seen/{name}/{number}" for number in range(1, PUTS + 1)]


def test_a_voter_is_replaced_by_hand_while_traffic_goes_on(stores: Stores) -> None:
    stores.calm()
    founder = stores.founder()
    victim, asked = (name for name in stores.urls if name != founder)
    old = stores.states()[victim].member
    folder = Path(stores.lab.machine(victim)["log"]).parent / "data/store"
    rest = [name for name in stores.urls if name != victim]
    begin = time.monotonic()
    with Load(stores, asked) as load:
        said(stores.ctl(asked, "member", "remove", f"{old:x}", at=rest))
        until("the removed member's end", lambda: stores.pid(victim) is None, CHANGE_TIMEOUT_S)

        def emptied() -> bool:
            shutil.rmtree(folder, ignore_errors=True)  # fleetd starts it again now and then, and it makes its folder
            return not (folder / "member.json").exists()

        until("an empty folder", emptied, CHANGE_TIMEOUT_S)
        peer = stores.urls[victim].replace(":2379", ":2380")
        added = said(stores.ctl(asked, "member", "add", victim, "--learner", f"--peer-urls={peer}", at=rest))
        new = int(added.split()[1], 16)
        assert new != old and "added" in added
        until("a learner", lambda: victim in stores.states(), CHANGE_TIMEOUT_S)

        def promoted() -> bool:
            return stores.ctl(asked, "member", "promote", f"{new:x}", at=rest).returncode == 0

        until("a promotion", promoted, CHANGE_TIMEOUT_S)
        took = time.monotonic() - begin
    print(f"\nreplaced by hand in {took:.2f} s, longest pause of writes {load.longest_pause():.2f} s; {load.summary}")
    for machine in stores.urls:
        load.check(machine)
    assert {one.member for one in stores.states().values()} >= {new}
    stores.calm()
    with stopped(stores.wait_pid(asked)):
        until("a write that needs its vote", lambda: votes(stores, victim, founder), CHANGE_TIMEOUT_S)


def votes(stores: Stores, *both: str) -> bool:
    """Whether these two members of three can agree on a write."""
    return stores.ctl(both[0], "--command-timeout=3s", "put", "vote", "yes", at=both).returncode == 0
