"""`fleetd`: start this machine's part of the cluster and stay until told to stop."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from fleetd.config import Config, ConfigError, load

USAGE = 2
FAILURE = 1


class Unusable(Exception):
    """The data directory can't be written, or another fleetd holds it."""


def lock(data_dir: Path) -> TextIO:
    """Take the data directory for this process; the kernel gives it back at our end, however that comes."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = (data_dir / "lock").open("a+")
    except OSError as error:
        raise Unusable(f"can't use --data-dir {data_dir}: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        handle.seek(0)
        raise Unusable(f"another fleetd (pid {handle.read().strip()}) uses {data_dir}") from error
    try:
        handle.seek(0)
        handle.truncate()
        handle.write(str(os.getpid()))
        handle.flush()
    except OSError as error:
        raise Unusable(f"can't write in --data-dir {data_dir}: {error.strerror}") from error
    return handle


async def _until_told(config: Config) -> None:
    from fleetd.node import Node

    node = asyncio.create_task(Node(config).run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, node.cancel)
    try:
        await node
    except asyncio.CancelledError:
        logging.getLogger("fleetd").info("told to stop; units, store and presence keep running")


def _sentences(error: BaseException) -> list[str]:
    if isinstance(error, BaseExceptionGroup):
        return [line for part in error.exceptions for line in _sentences(part)]
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return [f"{place}{error.strerror}"]
    return [str(error) or type(error).__name__]


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 told to stop, 1 failed, 2 wrong settings."""
    try:
        config, arguments = load(sys.argv[1:] if argv is None else argv)
    except ConfigError as error:
        for line in str(error).splitlines():
            print(f"fleetd: {line}", file=sys.stderr)
        return USAGE
    from agent import filelimit
    from agent.identity import IdentityError  # what --help and a wrong flag need not wait for
    from fleetd.bootstrap import ClusterRecordError, Twin, forget_pledge
    from fleetd.registry import RegistryError

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    failed = 0
    filelimit.raise_limit()
    try:
        with lock(config.data_dir):
            if arguments.command == "forget-pledge":
                print(forget_pledge(config.data_dir / "cluster.json"))
            else:
                asyncio.run(_until_told(config))
    except* (Unusable, ClusterRecordError, Twin, IdentityError, RegistryError, OSError) as group:
        for line in _sentences(group):
            print(f"fleetd: {line}", file=sys.stderr)
        failed = FAILURE
    return failed


if __name__ == "__main__":
    sys.exit(main())
