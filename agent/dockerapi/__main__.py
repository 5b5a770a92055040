"""Containers and their API alone, without a cluster: for tests and for a machine that only wants containers."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
from pathlib import Path

from agent import identity
from agent.containers.container import Containers
from agent.dockerapi.server import DockerApi


async def serve(socket: Path, data_dir: Path, run_dir: Path) -> None:
    """Adopt what is there and serve until a signal comes."""
    containers = Containers(data_dir, run_dir, identity.boot())
    await containers.adopt()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    work = [asyncio.create_task(containers.run()), asyncio.create_task(DockerApi(containers, [socket]).run())]
    ending = asyncio.create_task(stopped.wait())
    await asyncio.wait([*work, ending], return_when=asyncio.FIRST_COMPLETED)
    for task in (*work, ending):
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m agent.dockerapi", description=__doc__)
    for name in ("socket", "data-dir", "run-dir"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    asyncio.run(serve(given.socket.absolute(), given.data_dir.absolute(), given.run_dir.absolute()))


if __name__ == "__main__":
    main()
