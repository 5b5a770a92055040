"""What an image's settings and a container's options come to."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from agent.containers.life import Invalid
from agent.containers.naming import new_id
from agent.containers.records import Record
from agent.docker_steps import UnitContainer
from agent.exec_context import DEFAULT_PATH
from agent.images.store import Image
from agent.units.docker_options import ContainerOptions

UNIT_LABEL = "fleet.unit"


def record_of(wanted: UnitContainer, image: Image, name: str, boot: str, place: Callable[[str], Path]) -> Record:
    """The record of a new container, with a fresh id; `place` says where one of an id lives."""
    options, settings = wanted.options, image.settings
    head = tuple(settings.get("Entrypoint") or ())
    tail = options.command or tuple(settings.get("Cmd") or ())
    if options.entrypoint is not None:
        head, tail = ((options.entrypoint,) if options.entrypoint else ()), options.command
    if not head + tail:
        raise Invalid("no command specified")
    container = new_id()
    labels = tuple(options.labels)
    if wanted.unit:
        labels = (*labels, (UNIT_LABEL, wanted.unit))
    return Record(
        id=container,
        name=name,
        image=image.id,
        options=replace(options, labels=labels),
        args=head + tail,
        env=environment(settings.get("Env") or (), options, container),
        user=options.user or settings.get("User") or "",
        directory=options.working_directory or settings.get("WorkingDir") or "",
        stop_signal=options.stop_signal or settings.get("StopSignal") or "TERM",
        log_dir=str(wanted.log_dir if wanted.unit else place(container) / "log"),
        created=time.time(),
        unit=wanted.unit,
        cgroup_parent=wanted.cgroup_parent,
        boot=boot,
        exposed=exposed(settings, options),
    )


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
