"""When a cluster takes units: once as many voters as its founder expected have joined the store, and then for good.

The founder writes how many (`cluster/voters`); whichever machine sees them first writes that they were reached.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fleetd.registry import keys
from kvstore.client import Client
from kvstore.errors import StoreError
from kvstore.model import Compare, Member, Op

log = logging.getLogger("fleetd.accepting")

LOOK_S = 0.3
"""Members can't be watched, so they are listed this often; never again once the voters were reached."""


@dataclass(frozen=True)
class Goal:
    """The record `cluster/voters`."""

    voters: int
    founder: str
    reached: bool = False
    revision: int = 0

    def value(self) -> bytes:
        """As stored."""
        return keys.encode(voters=self.voters, founder=self.founder, reached=self.reached)


def describe(goal: Goal, members: Iterable[Member], seen: Iterable[str]) -> str:
    """Who is in and who is missing, in words. `seen` are host:port of machines that announce themselves."""
    members = list(members)
    hosts = {member.id: _host(member.peer_urls[0]) if member.peer_urls else "" for member in members}

    def named(member: Member) -> str:
        return f"{member.name[:8]} at {hosts[member.id]}" if member.name else hosts[member.id]

    voters = [named(member) for member in members if not member.is_learner]
    joining = [named(member) for member in members if member.is_learner]
    strangers = sorted({address.rpartition(":")[0] for address in seen} - set(hosts.values()))
    words = f"{len(voters)} of {goal.voters} machines vote in the store ({', '.join(voters)})"
    if joining:
        words += f"; {', '.join(joining)} is joining"
    if strangers:
        words += f"; seen, but not joined: {', '.join(strangers)}"
    if (missing := goal.voters - len(voters) - len(joining) - len(strangers)) > 0:
        words += f"; {missing} more {'was' if missing == 1 else 'were'} not seen yet"
    return f"{words}."


def _host(url: str) -> str:
    return url.partition("://")[2].rpartition(":")[0]


class Accepting:
    """Answers whether units are taken. `waiting` says why this machine is in no cluster yet, '' when it is; `seen`
    gives the addresses of other machines."""

    def __init__(self, client: Client, waiting: Callable[[], str], seen: Callable[[], Iterable[str]]) -> None:
        self._client = client
        self._waiting = waiting
        self._seen = seen
        self._reached = False

    async def why_not(self) -> str:
        """Why no unit is taken now; '' when they are. Raises StoreError, RegistryError."""
        if self._reached:
            return ""
        if waiting := self._waiting():
            return waiting
        goal = await self._goal()
        if goal is None or goal.reached:
            self._reached = True
            return ""
        return "The cluster takes no units yet: " + describe(
            goal, (await self._client.member_list()).members, self._seen()
        )

    async def _goal(self) -> Goal | None:
        found = await self._client.get(keys.VOTERS)
        if not found.kvs:
            return None
        record = keys.decode(keys.VOTERS, found.kvs[0].value)
        return Goal(record.number("voters"), str(record["founder"]), bool(record["reached"]), found.kvs[0].mod_revision)

    async def expect(self, voters: int, machine: str, *, founding: bool) -> None:
        """Say how many voters units wait for: the founder does before others can join, and may say another number when
        it starts again, until they were reached. Others are not heard. Raises StoreError, RegistryError."""
        while True:
            goal = await self._goal()
            if goal is None and not founding:
                return
            if goal is not None and (goal.reached or goal.founder != machine or goal.voters == voters):
                return
            if await self._swap(goal, Goal(voters, machine)):
                return

    async def run(self) -> None:
        """Return once the voters were reached."""
        refused = ""
        while True:
            try:
                goal = await self._goal()
                if goal is None or goal.reached:
                    break
                members = (await self._client.member_list()).members
                voters = sum(1 for member in members if not member.is_learner)
                if voters >= goal.voters:
                    if await self._swap(goal, Goal(goal.voters, goal.founder, reached=True)):
                        log.info("%d machines vote in the store: units are accepted from now on", voters)
                    continue
            except keys.RegistryError as error:
                if str(error) != refused:
                    log.error("No voters can be counted: %s", error)
                refused = str(error)
            except StoreError as error:
                log.debug("the voters can't be counted now: %s", error)
            await asyncio.sleep(LOOK_S)
        self._reached = True

    async def _swap(self, before: Goal | None, after: Goal) -> bool:
        same = Compare.mod(keys.VOTERS, "=", before.revision if before else 0)
        return (await self._client.txn([same], [Op.put(keys.VOTERS, after.value())])).succeeded
