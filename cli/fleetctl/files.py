"""Find the file of a unit that a command names, and verify it before it leaves this terminal."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from agent.units.errors import UnitError, UnitFileError
from agent.units.names import parse_name
from agent.units.verify import verify
from cli.fleetctl.output import Failure, warn
from cli.fleetctl.session import unit_name
from fleetd.api.client import ApiClient

DEPENDENCIES = ("Requires=", "Wants=", "BindsTo=", "Requisite=")


def local_file(word: str) -> Path | None:
    """The file that a word names, or that of the template which it is an instance of."""
    path = Path(word)
    template = _template(unit_name(word))
    candidates = [path, path.parent / unit_name(word)]
    if template:
        candidates.append(path.parent / template)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _template(name: str) -> str:
    try:
        return parse_name(name).template or ""
    except UnitError as error:
        raise Failure(str(error)) from error


def find_text(api: ApiClient, word: str) -> tuple[str, Path | None]:
    """The text for a unit that the cluster does not have yet: a local file, else a template in the cluster."""
    name = unit_name(word)
    path = local_file(word)
    if path is not None:
        return read(api, name, path), path
    template = _template(name)
    stored = _stored_text(api, template) if template else None
    if stored is not None:
        return stored, None
    if "/" in word and Path(word).is_dir():
        raise Failure(f"{word} is a directory: name the unit files in it.")
    also = f", nor its template {template}" if template else ""
    raise Failure(f"{name} is neither a unit of the cluster nor a file here{also}.")


@cache
def _stored_text(api: ApiClient, name: str) -> str | None:
    """A template of the cluster: asked for once, however many of its instances are made."""
    stored = api.unit_file(name)
    return str(stored["text"]) if stored is not None else None


@cache
def _names(api: ApiClient) -> list[str]:
    return api.names()


def read(api: ApiClient, name: str, path: Path) -> str:
    """Read and verify a file; doubts go to stderr, and what can't be run is a Failure with file, line and column."""
    try:
        text = path.read_text()
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Failure(f"{path}: not a text file in UTF-8 (byte {error.start}).") from error
    try:
        known = _names(api) if any(word in text for word in DEPENDENCIES) else []
        _, notices = verify(name, text, known)
    except UnitFileError as error:
        place = f"{path}:{error.line}:{error.column}" if error.line else str(path)
        raise Failure(f"{place}: {error.reason}") from error
    except UnitError as error:
        raise Failure(f"{path}: {error}") from error
    for notice in notices:
        place = f"{path}:{notice.line}:{notice.column}" if notice.line else str(path)
        warn(f"{place}: warning: {notice.text}")
    return text
