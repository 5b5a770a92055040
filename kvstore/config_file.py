"""Etcd's configuration file: YAML whose keys are the flags' names, certificates in sections of their own.

Every mistake names its file and line: a key that nobody knows too, where etcd says nothing and goes on without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import yaml

Value = tuple[str, str]
"""Where a value stands, and its text as a flag would have it."""

SECTIONS: Mapping[str, Mapping[str, str]] = {
    "client-transport-security": {
        "cert-file": "cert-file",
        "key-file": "key-file",
        "client-cert-file": "client-cert-file",
        "client-key-file": "client-key-file",
        "client-cert-auth": "client-cert-auth",
        "trusted-ca-file": "trusted-ca-file",
        "auto-tls": "auto-tls",
        "allowed-hostname": "client-cert-allowed-hostname",
    },
    "peer-transport-security": {
        "cert-file": "peer-cert-file",
        "key-file": "peer-key-file",
        "client-cert-file": "peer-client-cert-file",
        "client-key-file": "peer-client-key-file",
        "client-cert-auth": "peer-client-cert-auth",
        "trusted-ca-file": "peer-trusted-ca-file",
        "auto-tls": "peer-auto-tls",
        "allowed-cn": "peer-cert-allowed-cn",
        "allowed-hostname": "peer-cert-allowed-hostname",
        "skip-client-san-verification": "peer-skip-client-san-verification",
    },
    "socket-options": {"reuse-port": "socket-reuse-port", "reuse-address": "socket-reuse-address"},
}
"""Of each section, which flag a key stands for."""
_ELSEWHERE = {flag: section for section, keys in SECTIONS.items() for flag in keys.values()}
_NULL, _BOOL, _INT = (f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int"))


class ConfigFileError(ValueError):
    """The file can't be taken; the text is a sentence for the user."""


def read(path: Path, known: Callable[[str], bool], is_duration: Callable[[str], bool]) -> dict[str, Value]:
    """Read a file: flag -> where its value stands, and its text.

    Numbers for durations are of nanoseconds, as Go's are. What stands there empty is left out. Raises ConfigFileError.
    """
    try:
        root = yaml.compose(path.read_text(), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigFileError(f"--config-file {path} can't be read: {error}") from error
    except yaml.MarkedYAMLError as error:
        at = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigFileError(f"{path}{at}: this is no YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigFileError(f"{path}: this is no YAML: {error}") from error
    found: dict[str, Value] = {}
    for key, place, node in _entries(root, str(path), str(path)):
        keys = SECTIONS.get(key)
        if keys is not None:
            for inner, inner_place, value in _entries(node, str(path), place):
                if inner not in keys:
                    raise ConfigFileError(f"{inner_place}: no key '{inner}' is known in {key}")
                _take(found, keys[inner], inner_place, value, is_duration)
        elif key in _ELSEWHERE:
            raise ConfigFileError(f"{place}: '{key}' stands in the section {_ELSEWHERE[key]}")
        elif not known(key):
            raise ConfigFileError(f"{place}: no key '{key}' is known")
        else:
            _take(found, key, place, node, is_duration)
    return found


def _entries(node: yaml.Node | None, path: str, place: str) -> list[tuple[str, str, yaml.Node]]:
    """Keys of a mapping with where they stand; none of what is empty."""
    if node is None or (isinstance(node, yaml.ScalarNode) and node.tag == _NULL):
        return []
    if not isinstance(node, yaml.MappingNode):
        raise ConfigFileError(f"{place}: these are no keys with values")
    entries: list[tuple[str, str, yaml.Node]] = []
    for key, value in node.value:
        at = f"{path}:{key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode):
            raise ConfigFileError(f"{at}: a key is a word")
        if any(name == key.value for name, _, _ in entries):
            raise ConfigFileError(f"{at}: '{key.value}' stands there twice")
        entries.append((key.value, at, value))
    return entries


def _take(found: dict[str, Value], flag: str, place: str, node: yaml.Node, is_duration: Callable[[str], bool]) -> None:
    if isinstance(node, yaml.SequenceNode):
        parts = [_scalar(place, flag, part) for part in node.value]
        found[flag] = (f"{place}: {flag}", ",".join(parts))
        return
    if isinstance(node, yaml.ScalarNode) and node.tag == _NULL:
        return
    text = _scalar(place, flag, node)
    if node.tag == _INT and is_duration(flag):
        text = f"{int(text) / 1_000_000:.6f}".rstrip("0").rstrip(".") + "ms"
    found[flag] = (f"{place}: {flag}", text)


def _scalar(place: str, flag: str, node: yaml.Node) -> str:
    """The text as a flag would have it."""
    if not isinstance(node, yaml.ScalarNode):
        raise ConfigFileError(f"{place}: the value of '{flag}' is neither a word nor a list of words")
    text = str(node.value)
    if node.tag == _BOOL:
        return "true" if text.lower() in ("true", "yes", "on") else "false"
    return str(yaml.safe_load(text)) if node.tag == _INT and not text.startswith(("0", "+")) else text
