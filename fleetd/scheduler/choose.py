"""Choose a machine for a unit: the constraints of [X-Fleet] one function each, then the least loaded of what is left.

A constraint says why it refuses a machine, in words for the person who waits for the unit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from agent.units.model import XFleet
from fleetd.scheduler.indices import Indices, Node


@dataclass(frozen=True)
class Request:
    """A unit that looks for a machine."""

    unit: str
    fleet: XFleet
    peers: Mapping[str, Collection[str]]
    """For each unit of MachineOf= the machines that it is placed on."""
    avoid: str = ""
    """A machine that it must leave."""


@dataclass(frozen=True)
class Refused:
    """No machine will do; `reason` is a sentence."""

    reason: str


Constraint = Callable[[Node], str]
"""Empty when the machine will do, else why not."""


def constraints(request: Request, indices: Indices) -> list[Constraint]:
    """What a machine must satisfy."""
    fleet, chain = request.fleet, list[Constraint]()
    if fleet.machine_id is not None:
        wanted = fleet.machine_id
        chain.append(lambda node: "" if node.id.startswith(wanted) else f"other than MachineID={wanted}")
    for key, values in fleet.required_metadata.items():
        chain.append(_metadata(key, values))
    for peer, machines in request.peers.items():
        chain.append(_peer(peer, machines))
    for glob in fleet.conflicts:
        chain.append(_conflict(glob, indices.machines_matching(glob)))
    refusing = indices.machines_refusing(request.unit)
    if refusing:
        chain.append(_refusing(refusing, request.unit))
    if request.avoid:
        chain.append(lambda node: "that it must leave" if node.id == request.avoid else "")
    return chain


def _metadata(key: str, values: frozenset[str]) -> Constraint:
    wanted = " or ".join(f"{key}={value}" for value in sorted(values))
    return lambda node: "" if node.metadata.get(key) in values else f"without metadata {wanted}"


def _peer(peer: str, machines: Collection[str]) -> Constraint:
    return lambda node: "" if node.id in machines else f"without {peer} (MachineOf)"


def _conflict(glob: str, holding: Mapping[str, int]) -> Constraint:
    def check(node: Node) -> str:
        others = holding.get(node.id, 0)
        return f"with a unit that matches Conflicts={glob}" if others else ""

    return check


def _refusing(refusing: Iterable[Mapping[str, int]], unit: str) -> Constraint:
    def check(node: Node) -> str:
        refused = any(node.id in machines for machines in refusing)
        return f"with a unit that conflicts with {unit}" if refused else ""

    return check


def feasible(node: Node, chain: Iterable[Constraint]) -> bool:
    """Whether a machine satisfies all constraints."""
    return not any(constraint(node) for constraint in chain)


def choose(request: Request, indices: Indices) -> str | Refused:
    """The least loaded machine that will do, or why there is none. The unit must not be in the indices itself."""
    for peer, machines in request.peers.items():
        if not machines:
            return Refused(f"MachineOf={peer}: {peer} is not placed on any machine yet.")
    chain = constraints(request, indices)
    named = _named(request, indices)
    if named is None:
        for node in indices.by_load(request.fleet.required_metadata):
            if feasible(node, chain):
                return node.id
        return _refusal(indices.nodes.values(), chain)
    best: Node | None = None
    for node in named:
        if (best is None or node.load < best.load) and feasible(node, chain):
            best = node
    return best.id if best is not None else _refusal(indices.nodes.values(), chain)


def suits(request: Request, indices: Indices, machine: str, chain: Iterable[Constraint] | None = None) -> bool:
    """Whether a machine that lives satisfies the constraints, be the unit on it or not: its own presence does not
    count. `chain` are the request's constraints, for who asks of many machines."""
    node = indices.nodes[machine]
    if feasible(node, constraints(request, indices) if chain is None else chain):
        return True
    own = node.units.get(request.unit)
    if own is None:
        return False
    indices.remove_unit(machine, request.unit)
    try:
        return feasible(node, constraints(request, indices))
    finally:
        indices.add_unit(machine, request.unit, own)


def everywhere(request: Request, indices: Indices) -> list[str]:
    """The machines that a Global unit runs on: all that satisfy its constraints. Its own presence does not count."""
    chain = constraints(request, indices)
    return [machine for machine in list(indices.nodes) if suits(request, indices, machine, chain)]


def _named(request: Request, indices: Indices) -> list[Node] | None:
    """The few machines that MachineID= or MachineOf= leave; None when neither is asked for."""
    if request.fleet.machine_id is not None:
        return indices.find(request.fleet.machine_id)
    if not request.peers:
        return None
    smallest = min(request.peers.values(), key=len)
    return [indices.nodes[machine] for machine in smallest if machine in indices.nodes]


def _refusal(nodes: Iterable[Node], chain: list[Constraint]) -> Refused:
    counts: Counter[str] = Counter()
    total = 0
    for node in nodes:
        total += 1
        counts[next((why for check in chain if (why := check(node))), "")] += 1
    if not total:
        return Refused("No machine is there.")
    parts = [f"{count} {why}" for why, count in sorted(counts.items()) if why]
    return Refused(f"None of {total} machine{'s' if total != 1 else ''} will do: {'; '.join(parts)}.")
