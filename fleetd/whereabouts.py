"""Where the store's members are now. Machines may come back with other addresses, all of them even, while the store's
membership still holds the old ones; they are known by machine-id, so each machine finds the others as they found each
other when the cluster formed (mDNS or `--peers`, then `Hello`) and tells its own store member where its peers are.
Once there is a quorum, each machine writes its own new address into the membership. Clients follow.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from agent import durable
from fleetd.bootstrap import Bootstrap
from fleetd.config import PEER_PORT, Config
from fleetd.forming import Peer
from fleetd.registry import keys
from fleetd.registry.follow import Changed, follow
from kvstore.client import Client
from kvstore.errors import StoreError
from kvstore.model import Member

log = logging.getLogger("fleetd.whereabouts")

FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 5.0
ASK_TIMEOUT_S = 2.0


def peer_url(peer: Peer) -> str:
    """Where another machine's store member listens to members: beside its node RPC."""
    return f"http://{peer.address.rpartition(':')[0]}:{PEER_PORT}"


def overrides(members: Iterable[Member], seen: Mapping[str, Peer]) -> dict[str, list[str]]:
    """Member id in hexadecimal -> peer URLs, for members that were seen at another place than the membership says."""
    found = {f"{member.id:x}": (member, seen[member.name]) for member in members if member.name in seen}
    return {
        id: [peer_url(peer)] for id, (member, peer) in found.items() if tuple(member.peer_urls) != (peer_url(peer),)
    }


def client_url(peer: Peer) -> str | None:
    """The client URL of a machine that is a member itself; others name URLs of other hosts."""
    host = peer.address.rpartition(":")[0]
    return next((url for url in peer.store_endpoints if url.startswith(f"http://{host}:")), None)


def endpoints(me: str, members: Iterable[Member], seen: Mapping[str, Peer]) -> tuple[str, ...]:
    """Client URLs of the other voters, by member id: as seen, else as the membership says. Without a membership, of
    all members that were seen."""
    members = sorted(members, key=lambda member: member.id)
    if not members:
        return tuple(url for name in sorted(seen) if (url := client_url(seen[name])) is not None)
    found = []
    for member in members:
        if member.is_learner or member.name == me:
            continue
        now = client_url(seen[member.name]) if member.name in seen else None
        found += [now] if now is not None else list(member.client_urls[:1])
    return tuple(found)


def settled(members: Iterable[Member], seen: Mapping[str, Peer]) -> bool:
    """Whether every member votes, and the membership says of those that were seen what was seen."""
    members = list(members)
    return not any(member.is_learner for member in members) and all(
        tuple(member.peer_urls) == (peer_url(seen[member.name]),)
        and client_url(seen[member.name]) in member.client_urls
        for member in members
        if member.name in seen
    )


def steps_aside(me: Member, url: str, members: Iterable[Member], seen: Mapping[str, Peer]) -> bool:
    """Whether this member, which is at `url` now, must give up its own URL in the membership first: that one is
    another member's by now, whose URL is a third one's, and so on around, as when two have swapped their addresses.
    The membership takes no URL twice, so of such a ring the member with the smallest id makes room."""
    holders = {one: member for member in members for one in member.peer_urls}
    ring = [me]
    while (holder := holders.get(url)) is not None and holder not in ring:
        ring.append(holder)
        if holder.name not in seen:
            return False
        url = peer_url(seen[holder.name])
    return holder is me and len(ring) > 1 and me.id == min(member.id for member in ring)


class Whereabouts:
    """Keeps this machine's knowledge of the members' addresses fresh, and the members' of its own."""

    def __init__(
        self,
        config: Config,
        machine_id: str,
        bootstrap: Bootstrap,
        client: Client,
        own: Client,
        discovered: Mapping[str, str],
        overrides: Path,
        moved: Callable[[], None],
    ) -> None:
        """`own` asks this machine's member alone; `discovered` is what mDNS says: address -> a name that begins with a
        machine-id; `moved` is called when the record's `store_endpoints` have changed."""
        self._config = config
        self._me = machine_id
        self._bootstrap = bootstrap
        self._client = client
        self._own = own
        self._discovered = discovered
        self._overrides = overrides
        self._moved = moved
        self._names: frozenset[str] = frozenset()
        self._asked: set[str] | None = None
        self._news = asyncio.Event()

    def discovered(self) -> None:
        """To be called when mDNS has found something: a look is worth it when a member may be there."""
        if self._candidates() != self._asked:
            self._news.set()

    def _candidates(self) -> set[str]:
        """Where members may be. Names in mDNS are not to be trusted, but a member that hides is not our loss; so a
        large cluster does not ask itself all around for each machine that comes."""
        if not self._names:
            return self._bootstrap.addresses()
        elsewhere = {address for address, name in self._discovered.items() if name.split(".")[0] not in self._names}
        return self._bootstrap.addresses() - elsewhere

    async def run(self) -> None:
        """Look at each news, and again and again while the store and what was seen disagree. Until cancelled."""
        pause = FIRST_PAUSE_S
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            while True:
                self._news.clear()
                done = await self._round()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None if done else pause):
                        await self._news.wait()
                pause = FIRST_PAUSE_S if self._news.is_set() else min(pause * 2, MAX_PAUSE_S)

    async def _listen(self) -> None:
        """Machines write their address when they come up: whoever has no mDNS hears of it from the store."""
        async for change in follow(self._client, keys.MACHINES):
            for event in change.events if isinstance(change, Changed) else ():
                with contextlib.suppress(keys.RegistryError, KeyError):
                    if event.type == "put" and keys.decode(event.kv.key, event.kv.value)["role"] == "voter":
                        self._news.set()

    async def _round(self) -> bool:
        """Look once; true when nothing is left to do until there is news. A member goes by what it knows itself: the
        others may be ahead of it, and it can only follow them with the overrides that its own knowledge needs."""
        cluster = self._bootstrap.record.cluster_id
        voter = self._bootstrap.record.role == "voter"
        own = await self._members(self._own, linearizable=False) if voter else ()
        known = own or await self._members(self._client, linearizable=False)
        self._names = frozenset(member.name for member in known) or self._names
        self._asked = self._candidates()
        answers = await self._bootstrap.look(self._asked)
        seen = {name: peer for name, peer in answers.items() if peer.cluster_id == cluster}
        if own:
            self._override(overrides(own, seen))
        self._follow(endpoints(self._me, known, seen))
        members = await self._members(self._client, linearizable=True)
        told = not voter or await self._tell(members, seen)
        follows = not voter or set(own) == set(members)
        return told and follows and bool(members) and settled(members, seen)

    @staticmethod
    async def _members(client: Client, *, linearizable: bool) -> tuple[Member, ...]:
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                return (await client.member_list(linearizable)).members
        except (StoreError, TimeoutError) as error:
            log.debug("the store's members can't be read now: %s", error)
            return ()

    def _override(self, found: Mapping[str, list[str]]) -> None:
        text = json.dumps(found, sort_keys=True)
        with contextlib.suppress(OSError):
            if self._overrides.read_text() == text:
                return
        if found or self._overrides.exists():
            log.info("the store's peers are elsewhere for now: %s", text)
            durable.replace(self._overrides, text.encode())

    def _follow(self, found: tuple[str, ...]) -> None:
        if not found or found == self._bootstrap.record.store_endpoints:
            return
        self._bootstrap.save(store_endpoints=found)
        self._moved()

    async def _tell(self, members: tuple[Member, ...], seen: Mapping[str, Peer]) -> bool:
        """Write this machine's own peer URL into the membership; true when it is there. A member that makes room for
        another one is known by its client URL for a moment, which nobody else can have; peers go by the overrides."""
        mine = next((member for member in members if member.name == self._me), None)
        if mine is None:
            return False
        if tuple(mine.peer_urls) == (self._config.peer_url,):
            return True
        aside = steps_aside(mine, self._config.peer_url, members, seen)
        url = mine.client_urls[0] if aside and mine.client_urls else self._config.peer_url
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                await self._client.member_update(mine.id, [url])
        except (StoreError, TimeoutError) as error:
            log.warning("the store does not take this machine's new address yet: %s", error)
            return False
        log.info("member %x is known at %s now", mine.id, url)
        return not aside
