"""What a machine is told: file, environment and flags, the later over the earlier, checked by pydantic.

The file is TOML with the flags' names (`cluster-name = "prod"`); a flag's environment variable is `FLEETD_` and its
name in capitals (`FLEETD_CLUSTER_NAME`). This module reads and checks; it starts nothing.
"""

from __future__ import annotations

import argparse
import ipaddress
import logging
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

log = logging.getLogger("fleetd.config")

DEFAULT_FILE = Path("/etc/fleetd/fleetd.toml")
ENVIRONMENT_PREFIX = "FLEETD_"
NODE_PORT = 7480
CLIENT_PORT = 2379
PEER_PORT = 2380
LIST_FIELDS = ("peers", "kv_endpoints")


class ConfigError(Exception):
    """A setting is wrong; the text says which, where it came from, and what is expected."""


class Config(BaseModel):
    """Everything that a `fleetd` can be told; each field is a flag of the same name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: Path = Field(Path("/var/lib/fleetd"), description="where durable state lives")
    run_dir: Path = Field(Path("/run/fleetd"), description="sockets and what may be lost at a reboot")
    api_socket: Path = Field(Path("/run/fleet.sock"), description="the fleet API's unix socket")
    docker_socket: Path = Field(
        Path("/run/docker.sock"), description="a second Docker API socket, used when it is free"
    )
    machine_id_file: Path | None = Field(None, description="a file with the machine-id, instead of /etc/machine-id")
    cluster_name: str = Field("fleet", description="machines with other names are ignored")
    bootstrap_expect: int = Field(1, ge=1, le=99, description="how many machines found the cluster together")
    voters: int = Field(3, description="how many machines vote in the store")
    listen_address: str = Field("127.0.0.1", description="the address that other machines reach this one at")
    peers: tuple[str, ...] = Field((), description="addresses of other machines, where multicast is not allowed")
    metadata: dict[str, str] = Field({}, description="key=value pairs for MachineMetadata=")
    mdns: bool = Field(True, description="find other machines by multicast DNS")
    insecure: bool = Field(False, description="allow plain TCP beyond loopback")
    kv_endpoints: tuple[str, ...] = Field((), description="use this etcd v3 store instead of our own")
    store_election_ms: int = Field(600, ge=100, le=50_000, description="the store's election timeout")
    store_snapshot_count: int = Field(10_000, ge=10, description="log entries that the store keeps for lagging members")

    @field_validator("cluster_name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", value):
            raise ValueError("use 1 to 63 letters, digits, '_', '.' and '-', the first a letter or a digit")
        return value

    @field_validator("voters")
    @classmethod
    def _voters(cls, value: int) -> int:
        if value not in (3, 5, 7):
            raise ValueError("a store has 3, 5 or 7 voters")
        return value

    @field_validator("listen_address")
    @classmethod
    def _address(cls, value: str) -> str:
        address = ipaddress.ip_address(value)
        if address.version != 4:
            raise ValueError("machines reach each other over IPv4 in this version: name an IPv4 address")
        if address.is_unspecified:
            raise ValueError("name one address of this machine: others must be able to reach it there")
        return value

    @field_validator("peers", "kv_endpoints")
    @classmethod
    def _hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            place = urlsplit(text if "://" in text else f"http://{text}")
            try:
                good = place.scheme == "http" and bool(place.hostname) and place.port != 0
            except ValueError:
                good = False
            if not good or place.path.strip("/") or not re.fullmatch(r"[^\s,]+", text):
                raise ValueError(f"'{text}' is not HOST or HOST:PORT")
        return value

    @model_validator(mode="after")
    def _trust(self) -> Config:
        if not self.insecure and not self.on_loopback:
            raise ValueError(
                f"listen-address {self.listen_address} is beyond loopback, which wants TLS; "
                "this version has no certificates yet, so say --insecure if the network is yours alone"
            )
        return self

    @property
    def on_loopback(self) -> bool:
        """Whether nobody but this machine can reach it: a cluster of one."""
        return ipaddress.ip_address(self.listen_address).is_loopback

    @property
    def node_address(self) -> str:
        """host:port of this machine's node RPC."""
        return f"{self.listen_address}:{NODE_PORT}"

    @property
    def peer_url(self) -> str:
        """Where other store members reach this one."""
        return f"http://{self.listen_address}:{PEER_PORT}"

    @property
    def client_urls(self) -> tuple[str, ...]:
        """Where store clients reach this machine."""
        if self.on_loopback:
            return (f"http://{self.listen_address}:{CLIENT_PORT}",)
        return (f"http://{self.listen_address}:{CLIENT_PORT}", f"http://127.0.0.1:{CLIENT_PORT}")


def flag(name: str) -> str:
    """`cluster_name` -> `--cluster-name`."""
    return "--" + name.replace("_", "-")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, as for every other wrong setting."""
        raise ConfigError(f"{message}; see fleetd --help")


def parser() -> argparse.ArgumentParser:
    """The command line; every default is left out, so that only what was said counts."""
    command = _Parser(
        prog="fleetd",
        description="One machine of a fleet cluster. With no flags: a cluster of one on loopback.",
        epilog="example: fleetd --insecure --listen-address 10.0.0.1 --bootstrap-expect 3 --metadata disk=ssd",
    )
    command.add_argument("--config", type=Path, metavar="FILE", help=f"TOML file (default {DEFAULT_FILE}, if there)")
    for name, field in Config.model_fields.items():
        text = field.description or ""
        if isinstance(field.default, str | int | Path) and not isinstance(field.default, bool):
            text += f" (default {field.default})"
        if name in ("mdns", "insecure"):
            command.add_argument(flag(name), dest=name, action=argparse.BooleanOptionalAction, default=None, help=text)
        elif name == "metadata" or name in LIST_FIELDS:
            command.add_argument(flag(name), dest=name, action="append", default=None, help=f"{text} (repeatable)")
        else:
            command.add_argument(flag(name), dest=name, default=None, help=text)
    command.add_argument(
        "command",
        nargs="?",
        choices=["forget-pledge"],
        metavar="COMMAND",
        help="forget-pledge: drop this machine's promise to a founder whose disk is lost",
    )
    return command


def _pairs(value: object, origin: str) -> dict[str, str]:
    if isinstance(value, Mapping):
        return {str(k): str(v) for k, v in value.items()}
    items = value if isinstance(value, list) else [value]
    pairs: dict[str, str] = {}
    for item in (part for text in items for part in str(text).split(",")):
        key, equals, word = item.partition("=")
        if not equals or not key:
            raise ConfigError(f"{origin}: metadata '{item}' is not key=value")
        pairs[key.strip()] = word.strip()
    return pairs


def _plain(name: str, value: object, origin: str) -> object:
    if name == "metadata":
        return _pairs(value, origin)
    if name in LIST_FIELDS:
        items = value if isinstance(value, list) else [value]
        return tuple(part for text in items for part in str(text).split(",") if part)
    if value == "" and Config.model_fields[name].annotation in (Path, Path | None):
        raise ConfigError(f"{origin}: a path is not empty")
    return value


def load(argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> tuple[Config, argparse.Namespace]:
    """Read file, environment and flags. Raises ConfigError with one line for each wrong setting."""
    arguments = parser().parse_args(argv)
    values: dict[str, object] = {}
    origins: dict[str, str] = {}

    def take(name: str, value: object, origin: str) -> None:
        values[name] = _plain(name, value, origin)
        origins[name] = origin

    path = arguments.config or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)
    if path is not None:
        try:
            table: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: not a text file in UTF-8 (byte {error.start})") from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path}: {error}") from error
        for key, value in table.items():
            name = key.replace("-", "_")
            if name not in Config.model_fields:
                raise ConfigError(f"{path}: unknown setting '{key}'; 'fleetd --help' lists them")
            take(name, value, f"{path}: {key}")
    for variable, text in environ.items():
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        if name in Config.model_fields:
            take(name, text, variable)
        else:
            log.warning("%s is no setting and is not obeyed; 'fleetd --help' lists them", variable)
    for name in Config.model_fields:
        if (value := getattr(arguments, name)) is not None:
            take(name, value, flag(name))
    try:
        return Config.model_validate(values), arguments
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            name = str(problem["loc"][0]) if problem["loc"] else ""
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{origins.get(name, name)}: {message}" if name else message)
        raise ConfigError("\n".join(lines)) from error
