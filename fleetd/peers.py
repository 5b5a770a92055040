"""What this machine answers when another asks it by node RPC."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

from agent.nodeapi import VERSION
from agent.pb import node_pb2 as pb
from fleetd.bootstrap import Bootstrap
from fleetd.config import Config
from fleetd.voters import Voters

JournalSource = Callable[[str, int, bool], AsyncIterator[pb.JournalLine]]


class PeerAnswers:
    """Implements `agent.nodeapi.NodeHandlers`; parts are plugged in as the machine comes up."""

    def __init__(
        self, config: Config, machine_id: str, boot: str, bootstrap: Bootstrap, journal: JournalSource
    ) -> None:
        self._config = config
        self._machine_id = machine_id
        self._boot = boot
        self._bootstrap = bootstrap
        self._journal = journal
        self.voters: Voters | None = None
        """Set once the store answers; until then nobody is let in through this machine."""

    async def hello(self, request: pb.HelloRequest) -> pb.HelloResponse:
        """Who this machine is; a cluster id is named only when it is formed."""
        record = self._bootstrap.record
        formed = record.phase == "member"
        self._bootstrap.changed.set()
        return pb.HelloResponse(
            version=VERSION,
            cluster_name=self._config.cluster_name,
            machine_id=self._machine_id,
            boot=self._boot,
            cluster_id=record.cluster_id if formed else "",
            pledged_to=record.pledged_to,
            pledged_address=record.pledged_address,
            address=self._config.node_address,
            store_endpoints=self._store_endpoints(),
            bootstrap_expect=self._config.bootstrap_expect,
        )

    def _store_endpoints(self) -> Sequence[str]:
        record = self._bootstrap.record
        if self._config.kv_endpoints:
            return self._config.kv_endpoints
        return (
            self._config.client_urls[:1]
            if record.phase == "member" and record.role == "voter"
            else record.store_endpoints
        )

    async def pledge(self, request: pb.PledgeRequest) -> pb.PledgeResponse:
        """See `Bootstrap.pledge`."""
        return await self._bootstrap.pledge(request)

    async def release(self, request: pb.ReleaseRequest) -> None:
        """See `Bootstrap.release`."""
        await self._bootstrap.release(request)

    async def join(self, request: pb.JoinRequest) -> pb.JoinResponse:
        """Let a machine of our cluster's name in."""
        record = self._bootstrap.record
        if request.cluster_name != self._config.cluster_name:
            return pb.JoinResponse(why=f"this cluster is named '{self._config.cluster_name}'")
        if record.phase != "member" or self.voters is None:
            return pb.JoinResponse(cluster_id=record.cluster_id, why="its store does not answer yet")
        return await self.voters.join(request)

    def journal(self, request: pb.JournalRequest) -> AsyncIterator[pb.JournalLine]:
        """Lines of a unit on this machine."""
        return self._journal(request.unit, request.lines, request.follow)
