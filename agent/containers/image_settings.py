"""What an image's settings and a container's options come to."""

from __future__ import annotations

from collections.abc import Sequence

from agent.exec_context import DEFAULT_PATH
from agent.units.docker_line import ContainerOptions


def environment(image: Sequence[str], options: ContainerOptions, container: str) -> tuple[str, ...]:
    """The variables of a container: the image's, then those that were asked for, which win."""
    found = {"PATH": DEFAULT_PATH, "HOSTNAME": options.hostname or container[:12]}
    if options.tty:
        found["TERM"] = "xterm"
    for item in image:
        name, _, value = item.partition("=")
        found[name] = value
    found.update({name: value for name, value in options.env if value is not None})
    found.setdefault("HOME", "/root" if options.user in ("", "root", "0") else "/")
    return tuple(f"{name}={value}" for name, value in found.items())


def exposed(settings: object, options: ContainerOptions) -> tuple[str, ...]:
    """The ports that a container says it uses, as `80/tcp`: the image's and those that were asked for."""
    found = dict.fromkeys(settings.get("ExposedPorts") or ()) if isinstance(settings, dict) else {}
    found.update(dict.fromkeys(f"{number}/{kind}" for number, kind in options.expose))
    return tuple(found)
