"""The journal of a unit: several logs as one, by time, with a cursor; followed across processes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent import journal


def write(folder: Path, *lines: tuple[int, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "log.1", "a") as file:
        for second, text in lines:
            file.write(f"2026-01-02T03:04:{second:02d}.000000000Z stdout F {text}\n")


def texts(lines: list[journal.JournalLine]) -> list[str]:
    return [line.text for line in lines]


def test_logs_are_merged_by_time(tmp_path: Path) -> None:
    write(tmp_path / "000001-start", (1, "a"), (3, "c"), (5, "e"))
    write(tmp_path / "000002-start-post", (2, "b"), (4, "d"))
    assert texts(journal.read(tmp_path)) == ["a", "b", "c", "d", "e"]
    assert texts(journal.read(tmp_path, lines=2)) == ["d", "e"]
    assert journal.read(tmp_path / "nothing") == []


def test_a_cursor_goes_on_without_gap_or_repeat(tmp_path: Path) -> None:
    write(tmp_path / "000001-start", (1, "a"))
    position = journal.Position("m1", "b1")
    assert texts(journal.read(tmp_path, position=position)) == ["a"]
    cursor = str(position)
    write(tmp_path / "000001-start", (2, "b"))
    write(tmp_path / "000002-start", (3, "c"))
    assert texts(journal.read(tmp_path, position=journal.Position.parse(cursor))) == ["b", "c"]
    for bad in ("", "{}", '{"v":9,"m":"","b":"","f":{}}', '{"v":1,"m":"","b":"","f":{"x":"y"}}'):
        with pytest.raises(journal.JournalError):
            journal.Position.parse(bad)


async def test_following_sees_processes_that_start_later(tmp_path: Path) -> None:
    write(tmp_path / "000001-start", (1, "a"), (2, "b"))
    seen: list[str] = []

    async def follow() -> None:
        async for line in journal.follow(tmp_path, lines=1):
            seen.append(line.text)

    task = asyncio.create_task(follow())
    async with asyncio.timeout(60):
        while seen != ["b"]:
            await asyncio.sleep(0.01)
        write(tmp_path / "000001-start", (3, "c"))
        while seen != ["b", "c"]:
            await asyncio.sleep(0.01)
        write(tmp_path / "000002-stop-post", (4, "d"))
        while seen != ["b", "c", "d"]:
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])


def test_folders_are_numbered_and_bounded(tmp_path: Path) -> None:
    first = journal.new_folder(tmp_path, "start")
    for _ in range(journal.FOLDERS_KEPT + 5):
        journal.new_folder(tmp_path, "start", frozenset({str(first)}))
    kept = journal.folders(tmp_path)
    assert first in kept and kept[-1].name == f"{journal.FOLDERS_KEPT + 6:06d}-start"
    assert len(kept) <= journal.FOLDERS_KEPT + 1


def test_no_number_comes_twice_while_a_process_has_it(tmp_path: Path) -> None:
    live = tmp_path / "000007-start"
    assert journal.new_folder(tmp_path, "start", frozenset({str(live)})).name == "000008-start"


def test_a_note_reads_as_a_line(tmp_path: Path) -> None:
    journal.write_note(tmp_path / "000001-start", "docker: no such image")
    (line,) = journal.read(tmp_path)
    assert (line.stream, line.text) == ("stderr", "docker: no such image")
