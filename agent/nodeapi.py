"""Node RPC: the gRPC service that machines ask each other on port 7480, and a client for it.

Only transport and translation: what the answers are is decided by the handlers that `serve` is given.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Protocol

import grpc
import grpc.aio

from agent.pb import node_pb2 as pb
from agent.pb import node_pb2_grpc

VERSION = 1
CALL_TIMEOUT_S = 2.0


class NodeHandlers(Protocol):
    """What a machine answers."""

    async def hello(self, request: pb.HelloRequest) -> pb.HelloResponse:
        """Say who this machine is."""
        ...

    async def pledge(self, request: pb.PledgeRequest) -> pb.PledgeResponse:
        """Promise, or say to whom this machine is bound."""
        ...

    async def release(self, request: pb.ReleaseRequest) -> None:
        """Take a promise back."""
        ...

    async def join(self, request: pb.JoinRequest) -> pb.JoinResponse:
        """Let a machine into the formed cluster."""
        ...

    def journal(self, request: pb.JournalRequest) -> AsyncIterator[pb.JournalLine]:
        """Stream the lines of a unit that runs or ran here."""
        ...


class _Service(node_pb2_grpc.NodeServicer):
    def __init__(self, handlers: NodeHandlers) -> None:
        self._handlers = handlers

    async def Hello(self, request: pb.HelloRequest, context: object) -> pb.HelloResponse:
        return await self._handlers.hello(request)

    async def Pledge(self, request: pb.PledgeRequest, context: object) -> pb.PledgeResponse:
        return await self._handlers.pledge(request)

    async def Release(self, request: pb.ReleaseRequest, context: object) -> pb.ReleaseResponse:
        await self._handlers.release(request)
        return pb.ReleaseResponse()

    async def Join(self, request: pb.JoinRequest, context: object) -> pb.JoinResponse:
        return await self._handlers.join(request)

    async def Journal(self, request: pb.JournalRequest, context: object) -> AsyncIterator[pb.JournalLine]:
        async for line in self._handlers.journal(request):
            yield line


async def serve(
    handlers: NodeHandlers, address: str, listen: Callable[[grpc.aio.Server, str], None]
) -> grpc.aio.Server:
    """Start answering at `address`; `listen` opens the port with the machine's credentials."""
    server = grpc.aio.server()
    node_pb2_grpc.add_NodeServicer_to_server(_Service(handlers), server)  # type: ignore[no-untyped-call]
    listen(server, address)
    await server.start()
    return server


class NodeClients:
    """Channels to other machines, one per address, opened on first use and kept."""

    def __init__(self, channel: Callable[[str], grpc.aio.Channel]) -> None:
        self._open = channel
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._greeting: dict[str, grpc.aio.Channel] = {}
        """Those for `hello` alone, which are given up when nobody answers."""

    def _stub(self, address: str, channels: dict[str, grpc.aio.Channel] | None = None) -> node_pb2_grpc.NodeStub:
        kept = self._channels if channels is None else channels
        if address not in kept:
            kept[address] = self._open(address)
        return node_pb2_grpc.NodeStub(kept[address])  # type: ignore[no-untyped-call]

    async def hello(self, address: str, request: pb.HelloRequest) -> pb.HelloResponse | None:
        """Ask who is there; None when nobody answers in time."""
        try:
            answer: pb.HelloResponse = await self._stub(address, self._greeting).Hello(request, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED and (old := self._greeting.pop(address, None)):
                # The connection may be to a machine that has lost its power since, and would be silent for ever.
                await old.close(grace=CALL_TIMEOUT_S)  # another greeting may be under way on it
            return None
        return answer

    async def pledge(self, address: str, request: pb.PledgeRequest) -> pb.PledgeResponse | None:
        """Ask for a pledge; None when nobody answers in time (the pledge may bind all the same)."""
        try:
            answer: pb.PledgeResponse = await self._stub(address).Pledge(request, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            return None
        return answer

    async def release(self, address: str, request: pb.ReleaseRequest) -> bool:
        """Give a pledge back; False when nobody answered."""
        try:
            await self._stub(address).Release(request, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            return False
        return True

    async def join(self, address: str, request: pb.JoinRequest) -> pb.JoinResponse | None:
        """Ask to be let in; None when nobody answers in time."""
        try:
            answer: pb.JoinResponse = await self._stub(address).Join(request, timeout=CALL_TIMEOUT_S * 3)
        except grpc.aio.AioRpcError:
            return None
        return answer

    async def journal(self, address: str, request: pb.JournalRequest) -> AsyncIterator[pb.JournalLine]:
        """Stream a unit's lines from another machine. Raises grpc.aio.AioRpcError when it can't be reached."""
        async for line in self._stub(address).Journal(request):
            yield line

    async def close(self) -> None:
        """Close every channel."""
        for kept in (self._channels, self._greeting):
            for channel in kept.values():
                await channel.close()
            kept.clear()
