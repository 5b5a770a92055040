"""fleet-presence on a real member: it holds, survives its own restart, tells a loss, lets go after the grace."""

from __future__ import annotations

import asyncio
import json
import struct
import subprocess
from pathlib import Path
from typing import Any

from kvstore.client import Client
from tests.unit.kvstore.members import Cluster

PROGRAM = Path(__file__).parents[3] / "target" / "release" / "fleet-presence"


class Presence:
    def __init__(self, folder: Path, endpoints: list[str], grace: float) -> None:
        self.page = folder / "page"
        self.socket = folder / "sock"
        config = folder / "presence.json"
        settings = {"endpoints": endpoints, "socket": str(self.socket), "page": str(self.page), "ttl": 2}
        config.write_text(json.dumps({**settings, "lease_file": str(folder / "lease"), "grace": grace}))
        self.argv = [str(PROGRAM), str(config)]
        self.process = subprocess.Popen(self.argv)

    def restart(self) -> None:
        self.process.kill()
        self.process.wait()
        self.socket.unlink()
        self.process = subprocess.Popen(self.argv)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with asyncio.timeout(60):
            while True:
                try:
                    return await asyncio.open_unix_connection(str(self.socket))
                except OSError:
                    await asyncio.sleep(0.02)


async def line(reader: asyncio.StreamReader) -> dict[str, Any]:
    async with asyncio.timeout(60):
        found: dict[str, Any] = json.loads(await reader.readline())
        return found


async def test_holds_restarts_tells_and_lets_go(cluster: Cluster, tmp_path: Path) -> None:
    presence = Presence(tmp_path, cluster.endpoints, grace=5.0)
    try:
        async with Client(cluster.endpoints) as client:
            reader, _writer = await presence.connect()
            lease = (await line(reader))["lease"]
            assert (await client.lease_time_to_live(lease)).granted_ttl == 2

            presence.restart()
            reader, writer = await presence.connect()
            assert await line(reader) == {"event": "lease", "lease": lease}

            await client.lease_revoke(lease)
            fresh = (await line(reader))["lease"]
            assert fresh != lease and fresh in (await client.lease_list()).ids

            for request in (b'{"op":"checkin"}\n', b'{"op":"no"}\n'):
                writer.write(request)
            answer = await line(reader)
            assert answer["ok"] and answer["renewing"] and answer["lease"] == fresh
            assert struct.unpack("<Qq", presence.page.read_bytes()[:16]) == (answer["answered_ms"], fresh)
            assert not (await line(reader))["ok"]

            async with asyncio.timeout(60):
                while fresh in (await client.lease_list()).ids:
                    await asyncio.sleep(0.1)
            writer.write(b'{"op":"checkin"}\n')
            assert (await line(reader))["ok"]
            assert (await line(reader))["lease"] not in (0, fresh)
            writer.close()
    finally:
        presence.process.kill()
        presence.process.wait()


def test_bad_settings(tmp_path: Path) -> None:
    config = tmp_path / "c.json"
    config.write_text('{"endpoints": []}')
    done = subprocess.run([PROGRAM, config], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "missing field `socket`" in done.stderr
