"""Machine-id and boot."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import identity


def test_a_named_file_wins_and_must_hold_an_id(tmp_path: Path) -> None:
    file = tmp_path / "id"
    file.write_text("0123456789ABCDEF0123456789abcdef\n")
    assert identity.machine_id(file, tmp_path) == "0123456789abcdef0123456789abcdef"
    file.write_text("short\n")
    with pytest.raises(identity.IdentityError, match=r"does not hold a machine-id \(32 hexadecimal digits"):
        identity.machine_id(file, tmp_path)


def test_without_any_file_one_is_made_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "SYSTEM_FILE", tmp_path / "missing")
    first = identity.machine_id(None, tmp_path)
    assert len(first) == 32 and identity.machine_id(None, tmp_path) == first


def test_a_boot_names_the_kernel_and_pid_1() -> None:
    kernel = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    assert identity.boot().startswith(kernel + "-") and identity.boot() == identity.boot()
