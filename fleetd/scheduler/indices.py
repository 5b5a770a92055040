"""What the scheduler knows of the cluster, kept so that a decision looks at few machines and at no other unit:
machines by load, by metadata, and by the globs of Conflicts= and Replaces=.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from agent.units.model import XFleet
from fleetd.scheduler.globs import GlobIndex


@dataclass
class Node:
    """A machine that lives, as the scheduler sees it."""

    id: str
    metadata: Mapping[str, str]
    units: dict[str, XFleet] = field(default_factory=dict)

    @property
    def load(self) -> int:
        return len(self.units)


class Buckets:
    """Machines by their load, the least loaded first at no cost."""

    def __init__(self) -> None:
        self._levels: list[dict[str, None]] = []
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, machine: str, load: int) -> None:
        """A machine with this load belongs to the set."""
        while load >= len(self._levels):
            self._levels.append({})
        self._levels[load][machine] = None
        self._size += 1

    def remove(self, machine: str, load: int) -> None:
        """A machine with this load leaves the set."""
        del self._levels[load][machine]
        self._size -= 1

    def level(self, load: int) -> Iterator[str]:
        """The machines with this load."""
        return iter(self._levels[load]) if load < len(self._levels) else iter(())

    @property
    def height(self) -> int:
        """One more than the highest load."""
        return len(self._levels)


def walk(sets: Sequence[Buckets]) -> Iterator[str]:
    """The machines of several sets that share none, the least loaded first."""
    for load in range(max((each.height for each in sets), default=0)):
        for each in sets:
            yield from each.level(load)


class Indices:
    """The living machines and what is placed on them."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self._all = Buckets()
        self._by_metadata: dict[tuple[str, str], Buckets] = {}
        self._holding = GlobIndex()
        self._holders: dict[str, dict[str, int]] = {}
        self._asked = GlobIndex()
        self._matched: dict[str, dict[str, int]] = {}

    # Machines

    def add_node(self, machine: str, metadata: Mapping[str, str]) -> Node:
        """A machine is there, or its metadata has changed."""
        node = self.nodes.get(machine)
        if node is None:
            node = self.nodes[machine] = Node(machine, dict(metadata))
            self._all.add(machine, 0)
        else:
            for pair in node.metadata.items():
                self._by_metadata[pair].remove(machine, node.load)
            node.metadata = dict(metadata)
        for pair in node.metadata.items():
            self._by_metadata.setdefault(pair, Buckets()).add(machine, node.load)
        return node

    def remove_node(self, machine: str) -> None:
        """A machine is gone, and nothing on it counts any more."""
        node = self.nodes.get(machine)
        if node is None:
            return
        for unit in list(node.units):
            self.remove_unit(machine, unit)
        for each in self._sets(node):
            each.remove(machine, 0)
        del self.nodes[machine]

    def find(self, machine_id: str) -> list[Node]:
        """The machines whose id is, or begins with, this text."""
        node = self.nodes.get(machine_id)
        if node is not None:
            return [node]
        return [node for key, node in self.nodes.items() if key.startswith(machine_id)]

    def _sets(self, node: Node) -> list[Buckets]:
        return [self._all, *(self._by_metadata[pair] for pair in node.metadata.items())]

    def _moved(self, node: Node, before: int) -> None:
        for each in self._sets(node):
            each.remove(node.id, before)
            each.add(node.id, node.load)

    def by_load(self, wanted: Mapping[str, frozenset[str]] | None = None) -> Iterator[Node]:
        """The machines, the least loaded first; with `wanted` metadata only those of its rarest key that have it."""
        choices = [[self._all]]
        for key, values in (wanted or {}).items():
            choices.append([b for value in values if (b := self._by_metadata.get((key, value))) is not None])
        rarest = min(choices, key=lambda sets: sum(len(each) for each in sets))
        for machine in walk(rarest):
            yield self.nodes[machine]

    # Units

    def add_unit(self, machine: str, unit: str, fleet: XFleet) -> None:
        """A unit is placed on a machine."""
        node = self.nodes.get(machine)
        if node is None:
            return
        if unit in node.units:
            self.remove_unit(machine, unit)
        load = node.load
        node.units[unit] = fleet
        self._moved(node, load)
        for glob in (*fleet.conflicts, *fleet.replaces):
            if self._holding.add(glob):
                self._holders[glob] = {}
            _count(self._holders[glob], machine, 1)
        for glob in self._asked.matches(unit):
            _count(self._matched[glob], machine, 1)

    def remove_unit(self, machine: str, unit: str) -> None:
        """A unit is no longer placed on a machine."""
        node = self.nodes.get(machine)
        fleet = node.units.pop(unit, None) if node is not None else None
        if node is None or fleet is None:
            return
        self._moved(node, node.load + 1)
        for glob in (*fleet.conflicts, *fleet.replaces):
            _count(self._holders[glob], machine, -1)
            if self._holding.remove(glob):
                del self._holders[glob]
        for glob in self._asked.matches(unit):
            _count(self._matched[glob], machine, -1)

    def machines_matching(self, glob: str) -> Mapping[str, int]:
        """The machines that hold a unit that this glob matches. A glob's first question looks at all units, later
        ones at none."""
        if glob not in self._asked:
            self._asked.add(glob)
            found: dict[str, int] = {}
            one = GlobIndex()
            one.add(glob)
            for machine, node in self.nodes.items():
                count = sum(1 for unit in node.units if one.matches(unit))
                if count:
                    found[machine] = count
            self._matched[glob] = found
        return self._matched[glob]

    def machines_refusing(self, unit: str) -> list[Mapping[str, int]]:
        """The machines that hold a unit whose Conflicts= or Replaces= names this one, by glob."""
        return [self._holders[glob] for glob in self._holding.matches(unit)]


def _count(counts: dict[str, int], machine: str, change: int) -> None:
    counts[machine] = counts.get(machine, 0) + change
    if not counts[machine]:
        del counts[machine]
