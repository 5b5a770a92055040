"""The gateway forwards to whichever endpoint accepts, and says what is wrong with an address."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.ports import free_port
from kvstore.gateway import Gateway, host_port, main


def test_addresses(capsys: pytest.CaptureFixture[str]) -> None:
    assert host_port("http://10.0.0.1:2379") == ("10.0.0.1", 2379)
    assert host_port("[::1]:1") == ("::1", 1)
    for bad in ("host", "host:x", "host:70000", "https://h:1"):
        with pytest.raises(ValueError, match="not an endpoint"):
            host_port(bad)
    assert main(["start", "--endpoints", "nowhere"]) == 2
    assert "'nowhere' is not an endpoint" in capsys.readouterr().err


async def test_goes_to_one_that_accepts_and_ends_with_it() -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()

    backend = await asyncio.start_server(shout, "127.0.0.1", 0)
    gateway = await Gateway([("127.0.0.1", free_port()), backend.sockets[0].getsockname()]).serve("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*gateway.sockets[0].getsockname())
    writer.write(b"hello\n")
    async with asyncio.timeout(30):
        assert await reader.read() == b"HELLO\n"
    writer.close()
    gateway.close()
    backend.close()
