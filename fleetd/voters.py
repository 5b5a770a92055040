"""Which machines are members of the store: lets joiners in, one learner at a time, and promotes what has caught up.

The first `--voters` machines vote; the others use the store through a gateway. A machine that comes back with an empty
disk is a new member: its old one is removed first, and no member id is ever used twice. The membership of a store that
is not ours (`--kv-endpoints`) is nobody's to change.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.pb import node_pb2 as pb
from fleetd.registry import keys
from kvstore.client import Client
from kvstore.errors import StoreError
from kvstore.model import Member

log = logging.getLogger("fleetd.voters")

PROMOTE_RETRY_S = 0.2
ADMIT_TIMEOUT_S = 5.0
LEARNER_PATIENCE_S = 60.0
"""A learner whose machine is gone keeps others from joining for this long."""


@dataclass(frozen=True)
class Keep:
    """The machine is already in as it asks; answer the same again."""


@dataclass(frozen=True)
class Add:
    """Add it as a learner, after removing these old members."""

    remove: tuple[int, ...] = ()


@dataclass(frozen=True)
class AsClient:
    """The store has its voters: use it through a gateway."""


@dataclass(frozen=True)
class NotYet:
    """Another change is under way; ask again."""

    why: str
    learner: Member


def admit(members: tuple[Member, ...], voters: int, machine_id: str, peer_url: str) -> Keep | Add | AsClient | NotYet:
    """Decide about a joiner with an empty disk."""
    unstarted = [m for m in members if not m.name and peer_url in m.peer_urls]
    if unstarted:
        return Keep()
    old = tuple(m.id for m in members if m.name == machine_id or peer_url in m.peer_urls)
    others = [m for m in members if m.id not in old]
    if len(others) >= voters:
        return AsClient()
    learners = [m for m in others if m.is_learner]
    if learners:
        name = learners[0].name or learners[0].peer_urls[0]
        return NotYet(f"{name} is joining now; one at a time", learners[0])
    return Add(old)


def _endpoints(members: tuple[Member, ...]) -> list[str]:
    """Where the voters serve clients."""
    return [url for m in members if not m.is_learner for url in m.client_urls[:1]]


class Voters:
    """The store's membership, as one machine may change it."""

    def __init__(
        self,
        client: Client,
        voters: int,
        cluster_id: str,
        *,
        foreign: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`foreign` are the client URLs of a store that is not ours."""
        self._client = client
        self._foreign = foreign
        self._clock = clock
        self._waits_for: tuple[int, float] = (0, 0.0)
        self._voters = voters
        self._cluster_id = cluster_id
        self._lock = asyncio.Lock()

    async def join(self, request: pb.JoinRequest) -> pb.JoinResponse:
        """Answer a machine that asks to be let in."""
        if self._foreign:
            return pb.JoinResponse(cluster_id=self._cluster_id, voters=self._voters, store_endpoints=self._foreign)
        try:
            async with asyncio.timeout(ADMIT_TIMEOUT_S), self._lock:
                return await self._join(request)
        except (StoreError, TimeoutError) as error:
            return pb.JoinResponse(cluster_id=self._cluster_id, why=f"the store can't be changed now: {error}")

    async def _join(self, request: pb.JoinRequest) -> pb.JoinResponse:
        members = (await self._client.member_list()).members
        if not _endpoints(members):
            # Its store has only just started: a joiner without another's address could not use its own, a learner.
            return pb.JoinResponse(cluster_id=self._cluster_id, why="its store has not told its address yet")
        decision = admit(members, self._voters, request.machine_id, request.peer_url)
        match decision:
            case NotYet(why, learner):
                if await self._is_gone(learner):
                    log.warning("removing the learner %x: its machine has been gone for long", learner.id)
                    await self._client.member_remove(learner.id)
                return pb.JoinResponse(cluster_id=self._cluster_id, why=why)
            case Add(remove):
                for member in remove:
                    log.warning("removing the old member %x of %s", member, request.machine_id)
                    await self._client.member_remove(member)
                await self._client.member_add([request.peer_url], learner=True)
                members = (await self._client.member_list()).members
                log.info("%s joins as a learner", request.machine_id)
            case _:
                pass
        initial = ",".join(
            f"{m.name or request.machine_id}={url}"
            for m in members
            for url in m.peer_urls
            if m.name or url == request.peer_url
        )
        return pb.JoinResponse(
            cluster_id=self._cluster_id,
            voters=self._voters,
            store_endpoints=_endpoints(members),
            member=not isinstance(decision, AsClient),
            initial_cluster=initial,
        )

    async def _is_gone(self, learner: Member) -> bool:
        """Whether a learner that others wait for has had its time, and its machine does not live."""
        now = self._clock()
        if self._waits_for[0] != learner.id:
            self._waits_for = (learner.id, now)
        if now - self._waits_for[1] < LEARNER_PATIENCE_S:
            return False
        return not learner.name or not (await self._client.get(keys.presence(learner.name), count_only=True)).count

    async def promote(self, name: str) -> None:
        """Called by a machine for its own member: returns once it votes."""
        while True:
            with contextlib.suppress(StoreError):
                mine = [m for m in (await self._client.member_list()).members if m.name == name]
                if mine and not mine[0].is_learner:
                    return
                if mine:
                    await self._client.member_promote(mine[0].id)
                    log.info("member %x votes now", mine[0].id)
                    return
            await asyncio.sleep(PROMOTE_RETRY_S)
