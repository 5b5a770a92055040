"""A container runtime is what it says it is, whatever its file is called."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from agent.containers import runtime
from agent.containers.runtime import NoRuntime


def says(folder: Path, name: str, text: str) -> Path:
    """A program that answers `--version` so, and counts how often it was asked."""
    program = folder / name
    program.write_text(f'#!/bin/sh\necho "$@" >>{folder}/asked\necho "{text}"\n')
    program.chmod(0o755)
    return program


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(runtime, "NAMES", ("fleet-test-runc", "fleet-test-crun"))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "is_runc"),
    [("runc version 1.1.5+ds1", True), ("crun version 1.8.1", False), ("youki version 0.5 (runc)", False), ("", False)],
)
def test_the_kind_goes_by_its_own_word(folder: Path, text: str, is_runc: bool) -> None:
    program = says(folder, "fleet-test-runc", text)
    found = runtime.find()
    assert (found.path, found.is_runc) == (str(program), is_runc)


@pytest.mark.skipif(shutil.which("runc") is None, reason="needs runc")
def test_runc_behind_another_name_is_runc(folder: Path) -> None:
    (folder / "fleet-test-crun").symlink_to(str(shutil.which("runc", path="/usr/sbin:/usr/bin:/sbin:/bin")))
    assert runtime.find().is_runc


def test_it_is_asked_once_and_again_when_it_is_another(folder: Path) -> None:
    says(folder, "fleet-test-runc", "runc version 1.1.5")
    found = runtime.find()
    assert runtime.find(found) is found
    assert (folder / "asked").read_text().splitlines() == ["--version"]
    other = says(folder, "other", "crun version 1.8.1")
    (folder / "fleet-test-runc").unlink()
    (folder / "fleet-test-runc").symlink_to(other)
    assert not runtime.find(found).is_runc


def test_one_that_cannot_be_called_is_no_runc(folder: Path) -> None:
    program = folder / "fleet-test-runc"
    program.write_bytes(b"\x7fELF, but not really")
    program.chmod(0o755)
    assert not runtime.find().is_runc


def test_none_is_a_sentence(folder: Path) -> None:
    with pytest.raises(NoRuntime, match="none of the container runtimes"):
        runtime.find()
