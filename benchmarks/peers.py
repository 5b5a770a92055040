"""Who is compared: our store, Debian's etcd (or the one that $ETCD names), and the newest etcd where Go builds it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import BenchError

ROOT = Path(__file__).resolve().parents[1]
DEBIAN = ROOT / "build/peers/usr/bin/etcd"
GO_PLACE = ROOT / "build/peers-go"
GO_TIMEOUT_S = 600
MODULE = "go.etcd.io/etcd/server/v3"
MAIN = f"""package main

import (
	"os"

	"{MODULE}/etcdmain"
)

func main() {{ etcdmain.Main(os.Args) }}
"""
CLIENT_MODULE = "go.etcd.io/etcd/etcdctl/v3"
CLIENT_MAIN = f"""package main

import "{CLIENT_MODULE}/ctlv3"

func main() {{ ctlv3.MustStart() }}
"""


@dataclass(frozen=True)
class Peer:
    """A store that takes etcd's flags."""

    name: str
    command: tuple[str, ...]
    quiet: tuple[str, ...] = ()
    """Flags that keep its log short."""


def ours() -> Peer:
    """The store of this checkout."""
    return Peer("ours", (sys.executable, "-m", "kvstore"))


def etcd(path: str) -> Peer:
    """An etcd program, named after the version that it tells. Raises BenchError when it tells none."""
    try:
        told = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=True).stdout
        version = told.split("etcd Version:")[1].split()[0]
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        raise BenchError(f"{path} tells no version of etcd: {error}") from error
    return Peer(f"etcd {version}", (path,), ("--log-level", "error"))


def newest() -> tuple[Peer | None, str]:
    """The newest etcd, built once under build/peers-go; without it, a sentence that says why."""
    program, note = _built(GO_PLACE, "etcd", MODULE, MAIN)
    return (etcd(program), "") if program else (None, note)


def newest_client() -> tuple[str | None, str]:
    """The newest etcdctl, likewise."""
    return _built(GO_PLACE / "client", "etcdctl", CLIENT_MODULE, CLIENT_MAIN)


def _built(place: Path, name: str, module: str, main: str) -> tuple[str | None, str]:
    program = place / name
    if program.is_file():
        return str(program), ""
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        return None, f"The newest {name} is left out, since there is no Go to build it with."
    place.mkdir(parents=True, exist_ok=True)
    (place / "main.go").write_text(main)
    (place / "go.mod").write_text(f"module {name}\n\ngo 1.24\n")
    print(f"building the newest {name} ...", file=sys.stderr, flush=True)
    try:
        for words in (["get", f"{module}@latest"], ["mod", "tidy"], ["build", "-o", name, "."]):
            subprocess.run([go, *words], cwd=place, capture_output=True, text=True, timeout=GO_TIMEOUT_S, check=True)
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no reason given"])[-1]
        return None, f"The newest {name} is left out, since it can't be built here: {last}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"The newest {name} is left out, since it can't be built here: {error}"
    return str(program), ""


def find(with_newest: bool) -> tuple[list[Peer], list[str]]:
    """Ours first, then the etcds that there are; and a sentence for each that is left out."""
    peers, notes = [ours()], []
    named = os.environ.get("ETCD") or (str(DEBIAN) if DEBIAN.is_file() else shutil.which("etcd"))
    if named:
        peers.append(etcd(named))
    else:
        notes.append("Debian's etcd is left out: 'make setup' lays it under build/peers, or set ETCD=/path.")
    if with_newest:
        peer, note = newest()
        if peer is not None and all(peer.name != other.name for other in peers):
            peers.append(peer)
        notes += [note] if note else []
    return peers, notes
