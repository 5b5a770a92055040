"""How machines become one cluster: the decisions, without sockets, clocks or disks.

A machine knows its durable :class:`ClusterRecord` and what others answered to `Hello`; `decide` says what to do next,
and `answer_pledge` what to answer a candidate. `bootstrap.py` is the shell that acts and writes the record first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Phase = Literal["fresh", "founding", "member"]
Role = Literal["voter", "client"]


@dataclass(frozen=True)
class ClusterRecord:
    """What a machine has on disk about its cluster; written and synced before it is acted on."""

    version: int = 1
    phase: Phase = "fresh"
    cluster_name: str = ""
    cluster_id: str = ""
    role: Role = "voter"
    pledged_to: str = ""
    pledged_address: str = ""
    initial_cluster: str = ""
    initial_state: Literal["new", "existing"] = "new"
    store_endpoints: tuple[str, ...] = ()
    """Client URLs of voters when last heard of; for a machine without a member of its own."""


@dataclass(frozen=True)
class Peer:
    """Another machine, as its last `Hello` said."""

    machine_id: str
    address: str
    cluster_id: str = ""
    pledged_to: str = ""
    bootstrap_expect: int = 1
    store_endpoints: tuple[str, ...] = ()
    """Its own client URL when it is a member of the store, else those that it knows of."""


@dataclass(frozen=True)
class Wait:
    """Nothing to do until something changes; `why` is what status shows."""

    why: str


@dataclass(frozen=True)
class AskPledges:
    """Ask these machines to promise themselves to us."""

    peers: tuple[Peer, ...]


@dataclass(frozen=True)
class Found:
    """Enough machines are bound to us: found the cluster."""


@dataclass(frozen=True)
class Join:
    """Join the formed cluster of our name through one of these machines."""

    cluster_id: str
    addresses: tuple[str, ...]


Step = Wait | AskPledges | Found | Join


def decide(me: str, expect: int, record: ClusterRecord, seen: Mapping[str, Peer], granted: frozenset[str]) -> Step:
    """The next step of an unformed machine. `granted` holds the ids of those whose pledge we hold."""
    if record.phase == "founding":
        return Found()
    clusters = {peer.cluster_id for peer in seen.values() if peer.cluster_id}
    if len(clusters) > 1:
        names = ", ".join(sorted(clusters))
        return Wait(f"two clusters of this name exist ({names}): nothing is joined until one is renamed or removed")
    if clusters:
        (cluster,) = clusters
        formed = sorted(peer.address for peer in seen.values() if peer.cluster_id == cluster)
        return Join(cluster, tuple(formed))
    if record.pledged_to:
        if record.pledged_to in seen:
            return Wait(f"waiting for {record.pledged_to} to found the cluster")
        return Wait(
            f"pledged to {record.pledged_to}, which does not answer at {record.pledged_address}; "
            "if its disk is lost, run 'fleetd forget-pledge' here"
        )
    have = len(seen) + 1
    if have < expect:
        return Wait(f"{have} of {expect} machines are here: {', '.join(sorted([me, *seen]))}; waiting for the others")
    lowest = min([me, *seen])
    if lowest != me:
        return Wait(f"waiting for {lowest}, the lowest machine-id, to found the cluster")
    if len(granted & seen.keys()) >= expect - 1:
        return Found()
    return AskPledges(tuple(seen[name] for name in sorted(seen) if name not in granted))


def rejoin(record: ClusterRecord, seen: Mapping[str, Peer]) -> Join | Wait:
    """The next step of a member whose part of the store is gone: back into its own cluster, never another, and it never
    founds, since acknowledged writes may live on in the others."""
    formed = sorted(peer.address for peer in seen.values() if peer.cluster_id == record.cluster_id)
    if formed:
        return Join(record.cluster_id, tuple(formed))
    return Wait(
        f"this machine's part of the store is gone, and no machine of cluster {record.cluster_id} is here to join it "
        "through; if the whole cluster is lost, empty the data directory"
    )


@dataclass(frozen=True)
class PledgeAnswer:
    """Grant, or who holds it; `release` says that our own candidacy ends first."""

    granted: bool
    holder: str = ""
    why: str = ""
    release: bool = False


def answer_pledge(me: str, record: ClusterRecord, candidate: str, candidacy: bool, holder: Peer | None) -> PledgeAnswer:
    """What to tell `candidate`.

    `candidacy`: we hold or ask for pledges ourselves. `holder`: what the machine that holds our pledge answers now,
    None when it is silent or we are bound to nobody.
    """
    if record.phase == "member":
        return PledgeAnswer(False, why=f"already in cluster {record.cluster_id}: join it")
    if record.phase == "founding":
        return PledgeAnswer(False, me, "founding a cluster now: join it in a moment")
    if record.pledged_to == candidate:
        return PledgeAnswer(True)
    if record.pledged_to:
        if holder is not None and holder.pledged_to and not holder.cluster_id:
            # It has bound itself to another since: it can't found any more, and its release was lost.
            return PledgeAnswer(True)
        return PledgeAnswer(False, record.pledged_to, f"bound to {record.pledged_to} until it founds or releases")
    if candidacy and me < candidate:
        return PledgeAnswer(False, me, "a candidate itself, with the lower machine-id")
    return PledgeAnswer(True, release=candidacy)
