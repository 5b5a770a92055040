"""A network of its own for tests, where a name server on loopback knows the names; as a program, that server."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from tests.conformance.members import ROOT

Records = Mapping[str, Sequence[str]]
"""Name and type, `m0.example A`, to the records as a zone file has them."""
_BEGIN = 'ip link set lo up && mount --bind "$1" /etc/resolv.conf && exec "$2" -m tests.conformance.names "$3"'
READY = "ready"


class Names:
    """The network; `enter` before a command runs it there."""

    def __init__(self, directory: Path, records: Records) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        resolver, zone = directory / "resolv.conf", directory / "zone.json"
        resolver.write_text("nameserver 127.0.0.1\n")
        zone.write_text(json.dumps(records))
        words = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--mount", "sh", "-c", _BEGIN, "sh"]
        self._server = subprocess.Popen(
            [*words, str(resolver), sys.executable, str(zone)], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert self._server.stdout is not None
        assert self._server.stdout.readline().strip() == READY
        self.enter = ("nsenter", f"--target={self._server.pid}", "--net", "--mount")

    def close(self) -> None:
        self._server.kill()
        self._server.wait()


def _answered(question: bytes, records: Records) -> bytes:
    asked = dns.message.from_wire(question)
    answer = dns.message.make_response(asked)
    answer.flags |= dns.flags.RA
    for one in asked.question:
        name = one.name.to_text(omit_final_dot=True)
        kind = one.rdtype.name
        if found := records.get(f"{name} {kind}"):
            answer.answer.append(dns.rrset.from_text_list(one.name, 60, one.rdclass, kind, list(found)))
        elif not any(key.startswith(f"{name} ") for key in records):
            answer.set_rcode(dns.rcode.NXDOMAIN)
    return answer.to_wire()


def main(zone: Path) -> None:
    """Answer over UDP until killed."""
    records: Records = json.loads(zone.read_text())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as packets:
        packets.bind(("127.0.0.1", 53))
        print(READY, flush=True)
        while True:
            question, asker = packets.recvfrom(4096)
            packets.sendto(_answered(question, records), asker)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
