"""Short words for tests of the engine's plan: records as key-value pairs, decisions as text."""

from __future__ import annotations

from collections.abc import Mapping

from fleetd.engine.brake import Brake
from fleetd.engine.decisions import Alarm, Answer, Explain, Place, Unplace
from fleetd.engine.plan import Planner
from fleetd.engine.snapshot import Snapshot
from fleetd.registry import keys
from fleetd.registry.records import Desired, Machine, Placed, Presence, Return, Wish
from kvstore.model import Event, KeyValue

TTL = 3.0


class Cluster:
    """A planner, fed with what the store would tell it."""

    def __init__(self) -> None:
        self.snapshot = Snapshot()
        self.planner = Planner(self.snapshot, Brake(TTL))
        self.now = 100.0
        self.revision = 10

    def kv(self, key: bytes, value: bytes, lease: int = 0) -> KeyValue:
        self.revision += 1
        return KeyValue(key, value, self.revision, self.revision, 1, lease)

    def put(self, key: bytes, value: bytes, lease: int = 0) -> None:
        self.snapshot.apply(Event("put", self.kv(key, value, lease)))

    def delete(self, key: bytes) -> None:
        self.snapshot.apply(Event("delete", self.kv(key, b"")))

    def machine(self, name: str, metadata: Mapping[str, str] | None = None, lease: int = 1) -> None:
        self.put(keys.machine(name), Machine(name, "10.0.0.1:7480", metadata or {}).value())
        self.put(keys.presence(name), Presence(name, "boot", "10.0.0.1:7480").value(), lease)

    def dies(self, *names: str) -> None:
        for name in names:
            self.delete(keys.presence(name))

    def unit(self, name: str, fleet: str = "", desired: Desired = "launched", service: str = "") -> None:
        text = f"[Service]\nExecStart=/bin/true\n{service}\n[X-Fleet]\n{fleet}\n"
        digest = keys.file_hash(text)
        self.put(keys.file(digest), keys.encode(text=text))
        self.put(keys.unit(name), Wish(name, digest, desired).value())

    def placed(self, unit: str, machine: str) -> None:
        wish = self.snapshot.wishes[unit]
        self.put(keys.placement(machine, unit), Placed(unit, machine, wish.file, "launched").value())

    def runs(self, unit: str, machine: str, active: str = "active") -> None:
        self.put(keys.state(machine, unit), keys.encode(epoch=1, load="loaded", active=active, sub="running"))

    def asks(self, machine: str, lease: int, *units: str) -> None:
        self.put(keys.returning(machine), Return(machine, lease, dict.fromkeys(units, 1)).value())

    def plan(self, after: float = 0.0) -> list[str]:
        """Plan some seconds later; the decisions as sorted words."""
        self.now += after
        words = []
        for group in self.planner.plan(self.now):
            for decision in group:
                match decision:
                    case Place(placed):
                        words.append(f"{placed.unit} {placed.desired} on {placed.machine}")
                    case Unplace(unit, machine):
                        words.append(f"{unit} off {machine}")
                    case Explain(unit, reason):
                        words.append(f"{unit}: {reason or 'ok'}")
                    case Answer(answer):
                        words.append(f"answer {answer.machine}")
                    case Alarm(text):
                        words.append("alarm" if text else "no alarm")
        return sorted(words)

    def where(self, unit: str) -> list[str]:
        """The machines that a unit is placed on."""
        return sorted(self.snapshot.placements.get(unit, ()))


def three(metadata: bool = True) -> Cluster:
    """Machines a, b and c, of which the first has another disk than the others."""
    cluster = Cluster()
    for index, name in enumerate(("a", "b", "c")):
        cluster.machine(name, {"disk": "ssd" if index else "hdd"} if metadata else {})
    cluster.plan()
    return cluster
