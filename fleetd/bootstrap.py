"""From an empty data directory to a place in a cluster: the shell around `forming.py`.

Every promise is on disk and synced before it is spoken. A crash at any point is resumed from the record.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

from agent import durable
from agent.nodeapi import VERSION, NodeClients
from agent.pb import node_pb2 as pb
from fleetd import store
from fleetd.config import NODE_PORT, Config
from fleetd.forming import AskPledges, ClusterRecord, Found, Join, Peer, Step, Wait, answer_pledge, decide, rejoin
from fleetd.registry.records import Presence

log = logging.getLogger("fleetd.bootstrap")

RECORD_VERSION = 1
RETRY_S = 0.5
"""While a cluster forms others change without telling us, so we ask again this often; never once it is formed."""


class ClusterRecordError(Exception):
    """The record can't be used; the text says what to do."""


class Twin(Exception):
    """Another live machine has this machine's id; the text says where and what to do."""


def read_record(path: Path) -> ClusterRecord:
    """The record on disk, or a fresh one. Raises ClusterRecordError when it is damaged or newer than this program."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return ClusterRecord()
    try:
        table = json.loads(text)
        if table["version"] > RECORD_VERSION:
            raise ClusterRecordError(
                f"{path} was written by a newer fleetd (version {table['version']}, this one reads {RECORD_VERSION}): "
                "install the newer one again"
            )
        table["store_endpoints"] = tuple(table["store_endpoints"])
        return ClusterRecord(**table)
    except (ValueError, KeyError, TypeError) as error:
        raise ClusterRecordError(
            f"{path} is damaged ({error}): restore it, or empty the data directory to join anew"
        ) from error


class Bootstrap:
    """One machine's way into a cluster, and its answers to others on theirs."""

    def __init__(
        self, config: Config, machine_id: str, boot: str, clients: NodeClients, discovered: Callable[[], Iterable[str]]
    ) -> None:
        self._config = config
        self._me = machine_id
        self._boot = boot
        self._clients = clients
        self._discovered = discovered
        self._path = config.data_dir / "cluster.json"
        self.record = read_record(self._path)
        self.seen: dict[str, Peer] = {}
        self._granted: set[str] = set()
        self._asking = False
        self._twin = ""
        self._strangers: dict[str, str] = {}
        """Address -> why its machine is left out."""
        self.rejoined = False
        """The store's data were lost: if a store runs it is the old member's, or waits to join by old knowledge."""
        self.why = "starting"
        """What forming waits for; status shows it."""
        self.changed = asyncio.Event()

    def save(self, **changes: object) -> None:
        """Change the record on disk, then in memory."""
        record = dataclasses.replace(self.record, **changes)  # type: ignore[arg-type]
        durable.replace(self._path, json.dumps(dataclasses.asdict(record), indent=1).encode())
        self.record = record

    def _hello_request(self) -> pb.HelloRequest:
        return pb.HelloRequest(
            version=VERSION, cluster_name=self._config.cluster_name, machine_id=self._me, boot=self._boot
        )

    async def ask(self, address: str) -> Peer | None:
        """What the machine at `address` says it is; None for silence, another cluster's name, or ourselves."""
        answer = await self._clients.hello(address, self._hello_request())
        self._strangers.pop(address, None)
        if answer is None:
            return None
        if answer.cluster_name != self._config.cluster_name or answer.version != VERSION:
            self._strangers[address] = (
                f"belongs to '{answer.cluster_name}'"
                if answer.version == VERSION
                else f"speaks version {answer.version} of the node protocol, this one {VERSION}"
            )
            return None
        if answer.machine_id == self._me:
            if answer.boot != self._boot and address != self._config.node_address:
                self._meet_twin(address, answer)
            return None
        return Peer(
            answer.machine_id,
            address,
            answer.cluster_id,
            answer.pledged_to,
            answer.bootstrap_expect,
            tuple(answer.store_endpoints),
        )

    def _meet_twin(self, address: str, answer: pb.HelloResponse) -> None:
        """Note that this machine must give way; of two that have no place yet the one with the higher boot id does."""
        formed = self.record.phase == "member"
        if not formed and (answer.cluster_id or answer.boot < self._boot):
            self._twin = address
        else:
            log.error("the machine at %s has this machine's id %s, and will not be let in", address, self._me)

    def _twin_at(self, address: str) -> Twin:
        return Twin(
            f"the machine at {address} has this machine's id, {self._me}: give this one another "
            "(in /etc/machine-id or with --machine-id-file) and start fleetd again"
        )

    async def check_presence(self, presence: Presence | None) -> None:
        """Refuse to come up beside a live machine that announced itself under this machine's id, as the original of a
        copied disk does. Raises Twin."""
        if presence is None or presence.boot == self._boot or presence.address == self._config.listen_address:
            return
        address = f"{presence.address}:{NODE_PORT}"
        answer = await self._clients.hello(address, self._hello_request())
        if answer is not None and answer.machine_id == self._me and answer.boot != self._boot:
            raise self._twin_at(address)

    def addresses(self) -> set[str]:
        """Where to ask: what mDNS found, what the user named, and who holds this machine's pledge: nobody else may have
        named that one."""
        static = {peer if ":" in peer else f"{peer}:{NODE_PORT}" for peer in self._config.peers}
        holder = {self.record.pledged_address} if self.record.pledged_address else set()
        return (static | holder | set(self._discovered())) - {self._config.node_address}

    async def look(self, addresses: Iterable[str] | None = None) -> dict[str, Peer]:
        """Ask everyone, or those at `addresses`, at once who they are; those who answered, by machine-id."""
        asked = self.addresses() if addresses is None else addresses
        answers = await asyncio.gather(*(self.ask(address) for address in asked))
        self.seen = {peer.machine_id: peer for peer in answers if peer is not None}
        self._granted &= self.seen.keys()
        if self._twin:
            raise self._twin_at(self._twin)
        return self.seen

    async def form(self) -> ClusterRecord:
        """Return once this machine has a place: the record of a member or client."""
        while True:
            lost = store.lost(self._config, self.record)
            if self.record.phase == "member" and not lost:
                return self.record
            await self.look()
            step: Step = (
                rejoin(self.record, self.seen)
                if lost
                else decide(self._me, self._config.bootstrap_expect, self.record, self.seen, frozenset(self._granted))
            )
            match step:
                case Found():
                    return self._found()
                case Join(cluster_id, addresses):
                    if await self._join(cluster_id, addresses):
                        self.rejoined = lost
                        return self.record
                case AskPledges(peers):
                    self.say(f"asking {len(peers)} machines for their pledge")
                    await self._collect(peers)
                    if len(self._granted) >= self._config.bootstrap_expect - 1:
                        continue
                case Wait(why):
                    left_out = [f"{address} {what}" for address, what in sorted(self._strangers.items())]
                    self.say("; ".join([why, *left_out]))
            self.changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S):
                    await self.changed.wait()

    def say(self, why: str) -> None:
        """Note what is waited for, for the status and the log."""
        if why != self.why:
            log.info("%s", why)
            self.why = why

    async def _collect(self, peers: tuple[Peer, ...]) -> None:
        self._asking = True
        request = pb.PledgeRequest(
            cluster_name=self._config.cluster_name, candidate=self._me, candidate_address=self._config.node_address
        )
        answers = await asyncio.gather(*(self._clients.pledge(peer.address, request) for peer in peers))
        if self.record.pledged_to:
            return  # A lower id asked us meanwhile; our pledges were released.
        for peer, answer in zip(peers, answers, strict=True):
            if answer is not None and answer.granted:
                self._granted.add(peer.machine_id)
            elif answer is not None:
                self.say(f"{peer.machine_id} gives no pledge: {answer.why}")

    def _found(self) -> ClusterRecord:
        """Write that we found, then found; after a crash the same cluster id is founded again."""
        if self.record.phase != "founding":
            self.save(
                phase="founding",
                cluster_name=self._config.cluster_name,
                cluster_id=self.record.cluster_id or uuid.uuid4().hex,
                role="voter",
                pledged_to="",
                pledged_address="",
                initial_cluster=f"{self._me}={self._config.peer_url}",
                initial_state="new",
            )
        self.say(f"founding cluster {self.record.cluster_id}")
        return self.record

    async def _join(self, cluster_id: str, addresses: tuple[str, ...]) -> bool:
        request = pb.JoinRequest(
            cluster_name=self._config.cluster_name,
            machine_id=self._me,
            boot=self._boot,
            peer_url=self._config.peer_url,
            client_url=self._config.client_urls[0],
        )
        refused = []
        for address in addresses:
            answer = await self._clients.join(address, request)
            if answer is None or answer.why or answer.cluster_id != cluster_id:
                why = "no answer" if answer is None else answer.why or "it belongs to another cluster"
                refused.append(f"{address}: {why}")
                continue
            self.save(
                phase="member",
                cluster_name=self._config.cluster_name,
                cluster_id=cluster_id,
                role="voter" if answer.member else "client",
                pledged_to="",
                pledged_address="",
                initial_cluster=answer.initial_cluster,
                initial_state="existing",
                store_endpoints=tuple(answer.store_endpoints),
            )
            self.say(f"joined cluster {cluster_id} as a {self.record.role}")
            return True
        self.say(f"can't join yet ({'; '.join(refused)})")
        return False

    async def pledge(self, request: pb.PledgeRequest) -> pb.PledgeResponse:
        """Answer a candidate; a grant is on disk before it is spoken."""
        if request.cluster_name != self._config.cluster_name:
            return pb.PledgeResponse(granted=False, why=f"this machine belongs to '{self._config.cluster_name}'")
        holder = None
        if self.record.pledged_to and self.record.pledged_to != request.candidate:
            holder = await self.ask(self.record.pledged_address)
        candidacy = self._asking or bool(self._granted)
        answer = answer_pledge(self._me, self.record, request.candidate, candidacy, holder)
        if answer.release:
            await self._release_all()
        if answer.granted and self.record.pledged_to != request.candidate:
            if self.record.phase != "fresh":
                return pb.PledgeResponse(granted=False, holder=self._me, why="founding a cluster now")
            self.save(
                cluster_name=self._config.cluster_name,
                pledged_to=request.candidate,
                pledged_address=request.candidate_address,
            )
        self.changed.set()
        return pb.PledgeResponse(
            granted=answer.granted,
            holder=answer.holder,
            holder_address=self.record.pledged_address if answer.holder == self.record.pledged_to else "",
            why=answer.why,
        )

    async def _release_all(self) -> None:
        released, self._granted, self._asking = self._granted, set(), False
        request = pb.ReleaseRequest(candidate=self._me)
        await asyncio.gather(
            *(self._clients.release(self.seen[name].address, request) for name in released if name in self.seen)
        )

    async def release(self, request: pb.ReleaseRequest) -> None:
        """The holder gives our pledge back."""
        if self.record.phase == "fresh" and self.record.pledged_to == request.candidate:
            self.save(pledged_to="", pledged_address="")
            self.changed.set()


def forget_pledge(path: Path) -> str:
    """For `fleetd forget-pledge`. Raises ClusterRecordError once the machine has joined."""
    record = read_record(path)
    if record.phase != "fresh":
        raise ClusterRecordError("this machine has joined a cluster: there is no pledge to forget")
    if not record.pledged_to:
        return "this machine has given no pledge"
    fresh = dataclasses.replace(record, pledged_to="", pledged_address="")
    durable.replace(path, json.dumps(dataclasses.asdict(fresh), indent=1).encode())
    return f"forgot the pledge to {record.pledged_to}; start fleetd again"
