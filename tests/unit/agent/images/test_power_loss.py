"""What is on the disk the moment an image was acknowledged: a real file system on a loop device, copied as it lies."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.images.store import Images

DISK_BYTES = 64 << 20
FILE_BYTES = 1 << 20
FILES = 4
pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("mkfs.ext4") or not Path("/dev/loop-control").exists(),
        reason="needs root, ext4 and loop devices",
    ),
]


def mounted(disk: Path, place: Path) -> Path:
    """Mount the file system in a file."""
    place.mkdir()
    subprocess.run(["mount", "-o", "loop", str(disk), str(place)], check=True)
    return place


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk"
    with path.open("wb") as out:
        out.truncate(DISK_BYTES)
    subprocess.run(["mkfs.ext4", "-q", str(path)], check=True)
    mounted(path, tmp_path / "before")
    yield path
    for name in ("before", "after"):
        subprocess.run(["umount", str(tmp_path / name)], check=False)


def archive() -> bytes:
    """Files that ext4 allocates late."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for number in range(FILES):
            entry = tarfile.TarInfo(f"usr/{number}")
            entry.size = FILE_BYTES
            made.addfile(entry, io.BytesIO(bytes([number + 1]) * FILE_BYTES))
    return out.getvalue()


def test_an_acknowledged_image_is_whole_after_a_power_loss(disk: Path, tmp_path: Path) -> None:
    Images(tmp_path / "before").import_tar(io.BytesIO(archive()), "one")
    lost = tmp_path / "lost"
    shutil.copyfile(disk, lost)  # the power goes now: what was not written to the disk is gone
    image = Images(mounted(lost, tmp_path / "after")).resolve("one")
    assert image.size == FILES * FILE_BYTES
    for number in range(FILES):
        assert (image.layers[0] / "usr" / str(number)).read_bytes() == bytes([number + 1]) * FILE_BYTES
    assert not list((tmp_path / "after" / "tmp").iterdir())
