"""What the command `fleetd` says when it can't have its places; nothing of it runs then."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fleetd.__main__ import main
from fleetd.api.server import ApiServer
from fleetd.registry import Registry
from kvstore.client import Client

FULL = """
mount -t tmpfs -o size=16k none "$1" && { head -c 64k /dev/zero >"$1/fill" 2>/dev/null; true; } &&
exec "$0" -m fleetd --data-dir "$1/data" --run-dir "$1/run"
"""


def test_a_run_directory_that_is_a_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "file"
    place.touch()
    assert main(["--data-dir", str(tmp_path / "data"), "--run-dir", str(place)]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"fleetd: {place}: File exists"


@pytest.mark.skipif(os.geteuid() != 0, reason="a full disk is a small mount, which needs root; `make test` has it")
def test_a_full_disk_is_named(tmp_path: Path) -> None:
    words = ["unshare", "--mount", "sh", "-c", FULL, sys.executable, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"fleetd: can't write in --data-dir {tmp_path}/data: No space left on device"]


@pytest.mark.parametrize("name", ["x" * 200, "file/fleet.sock"])
async def test_a_socket_that_can_not_be_made_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    async with Client(["http://127.0.0.1:1"]) as client:
        server = ApiServer(tmp_path / name, Registry(client, "a" * 32))
        with pytest.raises(OSError, match=f"can't listen on --api-socket {tmp_path}/{name}: "):
            await server.start()
