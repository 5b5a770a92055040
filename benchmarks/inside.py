"""Runs inside a lab machine, as a program of its own: times commands there, and prints the seconds as JSON.

`python -m benchmarks.inside run PLACE COUNT` for containers, `... units PLACE COUNT` for units and the command lines.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

COMMAND_TIMEOUT_S = 60
SOCKET = "unix:///run/fleetd/docker.sock"
UNIT = "[Service]\nExecStart=/bin/sleep 86400\n"


def timed(*command: str) -> float:
    """Seconds from before the command's start until after its end. Raises SystemExit when it fails."""
    env = {**os.environ, "DOCKER_HOST": SOCKET}
    begin = time.perf_counter()
    done = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False
    )
    took = time.perf_counter() - begin
    if done.returncode != 0:
        said = (done.stdout + done.stderr).decode(errors="replace").strip()
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}: {said}")
    return took


def bundle(place: Path) -> None:
    """A bundle for bare runc: busybox's root file system and runc's own default settings."""
    tools = place / "rootfs/bin"
    tools.mkdir(parents=True)
    shutil.copy2("/usr/bin/busybox", tools / "busybox")
    (tools / "true").symlink_to("busybox")
    for name in ("proc", "sys", "dev"):
        (place / "rootfs" / name).mkdir()
    timed("runc", "spec", "--bundle", str(place))
    settings = json.loads((place / "config.json").read_text())
    settings["process"].update(terminal=False, args=["true"])
    (place / "config.json").write_text(json.dumps(settings))


def containers(place: Path, count: int) -> dict[str, list[float]]:
    """`docker` and `dock run --rm busybox true` and `runc run` of the same program, in turns. The first turn is not
    counted."""
    bundle(place / "bundle")
    took: dict[str, list[float]] = {"docker run": [], "dock run": [], "runc run": [], "docker version": []}
    for number in range(count + 1):
        turn = {
            "docker run": timed("docker", "run", "--rm", "busybox", "true"),
            "dock run": timed("dock", "run", "--rm", "busybox", "true"),
            "runc run": timed("runc", "run", "--bundle", str(place / "bundle"), f"bench-{os.getpid()}-{number}"),
            "docker version": timed("docker", "version"),
        }
        if number:
            for name, seconds in turn.items():
                took[name].append(seconds)
    return took


def units(place: Path, count: int) -> dict[str, list[float]]:
    """`fleetctl start` until it says that the unit runs, one unit after another; then what the command lines take."""
    took: dict[str, list[float]] = {"fleetctl start": [], "fleetctl list-units": [], "kvctl get": []}
    place.mkdir(parents=True, exist_ok=True)
    names = [f"bench-{number}.service" for number in range(count + 1)]
    for number, name in enumerate(names):
        (place / name).write_text(UNIT)
        seconds = timed("fleetctl", "start", str(place / name))
        if number:
            took["fleetctl start"].append(seconds)
    for _ in range(count):
        took["fleetctl list-units"].append(timed("fleetctl", "list-units"))
        took["kvctl get"].append(timed("kvctl", "get", "/bench"))
    timed("fleetctl", "destroy", *names)
    return took


def main() -> None:
    """Measure what the command line names."""
    what, place, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    print(json.dumps({"run": containers, "units": units}[what](place, count)))


if __name__ == "__main__":
    main()
