"""One configuration file, given to Debian's etcd and to ours."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.ports import free_ports
from tests.conformance.members import OURS, ROOT, Member, Members, etcd_path, etcdctl_path, until

pytestmark = pytest.mark.skipif(etcdctl_path() is None, reason="etcdctl is not here: run make setup")

FILE = """\
name: 'from-file'
data-dir: {directory}/data
heartbeat-interval: 50
election-timeout: 500
listen-peer-urls: http://127.0.0.1:{peer}
listen-client-urls: http://127.0.0.1:{client},http://127.0.0.1:{second}
initial-advertise-peer-urls: http://127.0.0.1:{peer}
advertise-client-urls: http://127.0.0.1:{client}
initial-cluster: from-file=http://127.0.0.1:{peer}
max-txn-ops: 2
client-transport-security:
  cert-file:
  client-cert-auth: false
peer-transport-security:
  allowed-cn:
log-outputs: [stderr]
"""


@pytest.mark.parametrize("variable", [False, True])
@pytest.mark.parametrize("server", ["etcd", "ours"])
def test_a_file_makes_the_same_member_of_both(tmp_path: Path, server: str, variable: bool) -> None:
    etcd = etcd_path()
    if server == "etcd" and etcd is None:
        pytest.skip("etcd is not here: run make setup")
    command = OURS if server == "ours" else (str(etcd),)
    client, second, peer = free_ports(3)
    path = tmp_path / "etcd.yaml"
    path.write_text(FILE.format(directory=tmp_path, client=client, second=second, peer=peer))
    # What stands beside the file is not looked at.
    words = ["--max-txn-ops=9", *([] if variable else [f"--config-file={path}"])]
    environment = {**os.environ, "ETCD_NAME": "other", **({"ETCD_CONFIG_FILE": str(path)} if variable else {})}
    log = (tmp_path / "log").open("ab")
    process = subprocess.Popen(
        [*command, *words], cwd=ROOT, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
    )
    members = Members(tmp_path, 0)
    at = [Member("from-file", tmp_path, port, peer) for port in (client, second)]
    try:
        until(f"leader, see {tmp_path / 'log'}", at[1].healthy)

        def told() -> Any:
            listed = json.loads(members.ctl("member", "list", "-w", "json", at=at))
            return listed if "clientURLs" in listed["members"][0] else None

        listed = until("its word of where clients reach it", told)
        assert [member["name"] for member in listed["members"]] == ["from-file"]
        assert listed["members"][0]["clientURLs"] == [at[0].client_url]
        puts = "".join(f"put k{n} v\n" for n in range(3))
        refused = members.ctl_raw("txn", at=at, stdin=f"\n{puts}\n\n")
        assert "too many operations in txn request" in refused.stderr
        assert (tmp_path / "data").is_dir()
    finally:
        process.kill()
        process.wait()
        log.close()
