"""The everyday `run` lines, read without the parser of all of docker's flags: importing that takes longer than anything
else that a client does. Whatever is not everyday is left to it (`cli.dock.line`); where both answer, they answer alike.
"""

from __future__ import annotations

from cli.dock.wish import Wish

_SWITCHES = {"--rm": "rm", "--detach": "d", "--interactive": "i", "--tty": "t"}
_LETTERS = frozenset("dit")
_VALUES = {"--name": "name", "--network": "network", "--net": "network"}


def read(words: list[str]) -> Wish | None:
    """What stands behind `run` or `create`; None when it holds anything that is not read here."""
    found: set[str] = set()
    values: dict[str, str] = {}
    at = 0
    while at < len(words) and words[at].startswith("-"):
        word = words[at]
        name, equals, value = word.partition("=")
        if word in _SWITCHES:
            found.add(_SWITCHES[word])
        elif len(word) > 1 and _LETTERS.issuperset(word[1:]):
            found.update(word[1:])
        elif name in _VALUES and (equals or at + 1 < len(words)):
            if not equals:
                at += 1
                value = words[at]
            values[_VALUES[name]] = value
        else:
            return None
        at += 1
    if at == len(words):
        return None
    return _wish(words[at], words[at + 1 :], found, values)


def _wish(image: str, command: list[str], found: set[str], values: dict[str, str]) -> Wish:
    detach, interactive = "d" in found, "i" in found
    streams = frozenset() if detach else frozenset({"stdout", "stderr", *(["stdin"] if interactive else [])})
    body: dict[str, object] = {
        "Image": image,
        "Cmd": command or None,
        "Tty": "t" in found,
        "OpenStdin": interactive,
        "StdinOnce": interactive and not detach,
        "AttachStdin": "stdin" in streams,
        "AttachStdout": "stdout" in streams,
        "AttachStderr": "stderr" in streams,
        "HostConfig": {"AutoRemove": "rm" in found, "NetworkMode": values.get("network") or "default"},
    }
    return Wish(
        body,
        image=image,
        name=values.get("name", ""),
        streams=streams,
        detach=detach,
        remove="rm" in found,
        tty="t" in found,
    )
