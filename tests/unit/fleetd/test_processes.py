"""Native programs that outlive fleetd: adoption, restart, stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fleetd.processes import Program, start_time


@contextlib.asynccontextmanager
async def running(program: Program) -> AsyncIterator[int]:
    task = asyncio.create_task(program.run())
    try:
        async with asyncio.timeout(60):
            await program.started.wait()
        assert program.pid is not None
        yield program.pid
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def sleeper(tmp_path: Path, seconds: str = "60") -> Program:
    return Program("sleeper", ["/bin/sleep", seconds], tmp_path, tmp_path, {})


async def test_the_next_fleetd_adopts_it(tmp_path: Path) -> None:
    async with running(sleeper(tmp_path)) as first:
        pass
    try:
        assert start_time(first) is not None
        async with running(sleeper(tmp_path)) as second:
            assert second == first
    finally:
        os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)


async def test_other_arguments_replace_it(tmp_path: Path) -> None:
    async with running(sleeper(tmp_path)) as first:
        pass
    other = sleeper(tmp_path, "61")
    async with running(other) as second:
        assert second != first and start_time(first) is None
        await other.stop()


async def test_one_that_is_not_to_be_adopted_is_replaced(tmp_path: Path) -> None:
    async with running(sleeper(tmp_path)) as first:
        pass
    anew = sleeper(tmp_path)
    anew.adopts = False
    async with running(anew) as second:
        assert second != first and start_time(first) is None
        await anew.stop()


async def test_what_is_killed_is_started_again(tmp_path: Path) -> None:
    program = sleeper(tmp_path)
    async with running(program) as first:
        os.kill(first, signal.SIGKILL)
        async with asyncio.timeout(60):
            while program.pid == first or not program.started.is_set():
                await asyncio.sleep(0.02)
        assert program.pid is not None and start_time(program.pid) is not None
        await program.stop()


async def test_a_program_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await Program("none", ["/nowhere/none"], tmp_path, tmp_path, {}).run()


async def test_it_goes_on_with_other_arguments_when_told_to(tmp_path: Path) -> None:
    program = sleeper(tmp_path)
    async with running(program) as first:
        program.replace(["/bin/sleep", "62"])
        async with asyncio.timeout(60):
            while program.pid == first or program.pid is None:
                await asyncio.sleep(0.02)
        second = program.pid
        async with asyncio.timeout(60):
            while b"62" not in Path(f"/proc/{second}/cmdline").read_bytes():
                await asyncio.sleep(0.02)  # between fork and exec it still has our name
        assert start_time(first) is None
    os.kill(second, signal.SIGKILL)
    os.waitpid(second, 0)
