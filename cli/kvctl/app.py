"""The command kvctl: its verbs, each imported only when it is asked for, and its global flags, which may stand anywhere
before `--`."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from cli import completion
from cli.kvctl import gotext, limits, security
from cli.kvctl.commandline import Verbs, arranged, explained, plain_words
from cli.kvctl.session import BAD_ARGUMENTS, BAD_FEATURE, OUTPUTS, flags
from cli.output import fail

Command = tuple[str, str, str]
"""Module, function, example."""
COMMANDS: dict[str, Command | dict[str, Command]] = {
    "put": ("keys", "put", "kvctl put /greeting hello"),
    "get": ("keys", "get", "kvctl get /greeting"),
    "del": ("keys", "delete", "kvctl del /load/ --prefix"),
    "txn": ("txn", "txn", "kvctl txn < file"),
    "compaction": ("keys", "compaction", "kvctl compaction 1234 --physical"),
    "watch": ("watch", "watch", "kvctl watch /fleet/v1/states/ --prefix"),
    "lease": {
        "grant": ("lease", "grant", "kvctl lease grant 60"),
        "revoke": ("lease", "revoke", "kvctl lease revoke 694d8f0b3c1a2f0e"),
        "timetolive": ("lease", "timetolive", "kvctl lease timetolive --keys 694d8f0b3c1a2f0e"),
        "list": ("lease", "list_", "kvctl lease list"),
        "keep-alive": ("lease", "keep_alive", "kvctl lease keep-alive 694d8f0b3c1a2f0e"),
    },
    "member": {
        "add": ("member", "add", "kvctl member add m4 --learner --peer-urls http://10.0.0.4:2380"),
        "remove": ("member", "remove", "kvctl member remove 8e9e05c52164694d"),
        "update": ("member", "update", "kvctl member update 8e9e05c52164694d --peer-urls http://10.0.0.5:2380"),
        "promote": ("member", "promote", "kvctl member promote 8e9e05c52164694d"),
        "list": ("member", "list_", "kvctl member list -w table"),
    },
    "endpoint": {
        "health": ("endpoint", "health", "kvctl endpoint health --cluster"),
        "status": ("endpoint", "status", "kvctl endpoint status --cluster -w table"),
        "hashkv": ("endpoint", "hashkv", "kvctl endpoint hashkv --cluster"),
    },
    "alarm": {
        "list": ("alarm", "list_", "kvctl alarm list"),
        "disarm": ("alarm", "disarm", "kvctl alarm disarm"),
    },
    "defrag": ("endpoint", "defrag", "kvctl defrag --cluster"),
    "move-leader": ("member", "move_leader", "kvctl move-leader 8e9e05c52164694d"),
    "downgrade": {
        "validate": ("alarm", "downgrade_validate", "kvctl downgrade validate 3.6"),
        "enable": ("alarm", "downgrade_enable", "kvctl downgrade enable 3.6"),
        "cancel": ("alarm", "downgrade_cancel", "kvctl downgrade cancel"),
    },
    "snapshot": {
        "save": ("snapshot", "save", "kvctl snapshot save backup.db"),
        "status": ("snapshot", "status", "kvctl snapshot status backup.db -w table"),
        "restore": ("snapshot", "restore", "kvctl snapshot restore backup.db --name m1 --data-dir /var/lib/m1"),
    },
    "auth": {
        "enable": ("users", "enable", "kvctl auth enable"),
        "disable": ("users", "disable", "kvctl --user root:secret auth disable"),
        "status": ("users", "status", "kvctl auth status"),
    },
    "user": {
        "add": ("users", "add", "kvctl user add alice"),
        "delete": ("users", "delete", "kvctl user delete alice"),
        "get": ("users", "get", "kvctl user get alice --detail"),
        "list": ("users", "list_", "kvctl user list"),
        "passwd": ("users", "passwd", "kvctl user passwd alice"),
        "grant-role": ("users", "grant_role", "kvctl user grant-role alice readers"),
        "revoke-role": ("users", "revoke_role", "kvctl user revoke-role alice readers"),
    },
    "role": {
        "add": ("roles", "add", "kvctl role add readers"),
        "delete": ("roles", "delete", "kvctl role delete readers"),
        "get": ("roles", "get", "kvctl role get readers"),
        "list": ("roles", "list_", "kvctl role list"),
        "grant-permission": ("roles", "grant_permission", "kvctl role grant-permission readers read /app/ --prefix"),
        "revoke-permission": ("roles", "revoke_permission", "kvctl role revoke-permission readers /app/ --prefix"),
    },
    "lock": ("lock", "lock", "kvctl lock jobs/nightly -- ./nightly.sh"),
    "elect": ("lock", "elect", "kvctl elect leader $HOSTNAME"),
    "make-mirror": ("mirror", "make_mirror", "kvctl make-mirror 10.0.1.1:2379 --prefix /app/ --dest-prefix /copy/"),
    "check": {
        "perf": ("check", "perf", "kvctl check perf --load m"),
        "datascale": ("check", "datascale", "kvctl check datascale --auto-compact"),
    },
    "top": ("top", "top", "kvctl top --once --json"),
    "version": ("about", "version", "kvctl version"),
    "options": ("about", "options", "kvctl options"),
    "completion": ("about", "script", "kvctl completion bash"),
    "health": ("endpoint", "health", "kvctl health --cluster"),
    "bench": ("load", "bench", "kvctl bench put --clients 64 --total 10000"),
}
GROUPS = {
    "lease": "Leases",
    "member": "Members",
    "endpoint": "Endpoints",
    "alarm": "Alarms",
    "downgrade": "Going down to an older version",
    "snapshot": "Snapshots, as etcd makes and takes them",
    "auth": "Authentication",
    "user": "Users",
    "role": "Roles",
    "check": "Trying how a cluster does",
}
_CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"]}
_PASSING: dict[str, Any] = {"allow_extra_args": True, "ignore_unknown_options": True}
LAST_PORT = 65535


def settings(
    endpoints: Annotated[str, typer.Option(envvar="ETCDCTL_ENDPOINTS", help="Separated by commas.")] = "127.0.0.1:2379",
    write_out: Annotated[
        str,
        typer.Option("-w", "--write-out", envvar="ETCDCTL_WRITE_OUT", help=f"{', '.join(OUTPUTS)}."),
    ] = "simple",
    as_json: Annotated[bool, typer.Option("--json", help="The same as -w json.")] = False,
    hexadecimal: Annotated[
        bool, typer.Option("--hex", envvar="ETCDCTL_HEX", help="Bytes as \\xNN, ids in hexadecimal.")
    ] = False,
    command_timeout: Annotated[
        str, typer.Option(envvar="ETCDCTL_COMMAND_TIMEOUT", help="Patience with the store.")
    ] = "5s",
    user: Annotated[
        str, typer.Option(envvar="ETCDCTL_USER", help="NAME[:PASSWORD]; the password is asked for.", show_default=False)
    ] = "",
    password: Annotated[str, typer.Option(envvar="ETCDCTL_PASSWORD", help="The user's.", show_default=False)] = "",
    auth_jwt_token: Annotated[
        str, typer.Option(envvar="ETCDCTL_AUTH_JWT_TOKEN", help="A token instead of a user.", show_default=False)
    ] = "",
    cacert: security.Cacert = None,
    cert: security.Cert = None,
    key: security.Key = None,
    insecure_skip_tls_verify: security.SkipVerify = False,
    insecure_transport: security.InsecureTransport = True,
    discovery_srv: security.DiscoverySrv = "",
    discovery_srv_name: security.DiscoverySrvName = "",
    insecure_discovery: security.InsecureDiscovery = True,
    max_request_bytes: Annotated[
        str,
        typer.Option(envvar="ETCDCTL_MAX_REQUEST_BYTES", help="Largest message that is sent, in bytes (0: 2 MiB)."),
    ] = "0",
    max_recv_bytes: Annotated[
        str,
        typer.Option(envvar="ETCDCTL_MAX_RECV_BYTES", help="Largest message that is taken, in bytes (0: 2 GiB)."),
    ] = "0",
    debug: Annotated[bool, typer.Option("--debug", envvar="ETCDCTL_DEBUG", help="Tell the global flags.")] = False,
    dial_timeout: Annotated[str, typer.Option(envvar="ETCDCTL_DIAL_TIMEOUT", hidden=True)] = "2s",
    keepalive_time: Annotated[str, typer.Option(envvar="ETCDCTL_KEEPALIVE_TIME", hidden=True)] = "2s",
    keepalive_timeout: Annotated[str, typer.Option(envvar="ETCDCTL_KEEPALIVE_TIMEOUT", hidden=True)] = "6s",
) -> None:
    """Take the global flags. Those of a connection's times are read, and checked: a connection that does not open
    within half a second or is silent for longer is given up for another anyway."""
    if write_out not in OUTPUTS:
        print(f"{write_out!r} is none of {', '.join(OUTPUTS)}.", file=sys.stderr)
        fail("unsupported output format", BAD_FEATURE)
    found = security.discovered(discovery_srv, discovery_srv_name, insecure_discovery) if discovery_srv else []
    flags.endpoints = found or [one.strip() for one in endpoints.split(",") if one.strip()]
    for one in flags.endpoints:
        port = one.rpartition(":")[2]
        if port.isdecimal() and int(port) > LAST_PORT:
            fail(f"{one!r} is not an endpoint: a port is 1 to {LAST_PORT}.", BAD_ARGUMENTS)
    flags.tls = security.identity(
        flags.endpoints,
        {"cacert": cacert, "cert": cert, "key": key},
        skip_verify=insecure_skip_tls_verify,
        insecure_transport=insecure_transport,
        server_name="" if insecure_discovery else discovery_srv,
    )
    flags.output = "json" if as_json else write_out
    flags.hex = hexadecimal
    times = {"command-timeout": command_timeout, "dial-timeout": dial_timeout}
    times |= {"keepalive-time": keepalive_time, "keepalive-timeout": keepalive_timeout}
    flags.timeout = {name: _seconds(name, value) for name, value in times.items()}["command-timeout"]
    flags.limits = limits.of(max_request_bytes, max_recv_bytes)
    flags.user, flags.password, flags.token = user, password, auth_jwt_token
    if debug:
        told = {"endpoints": f"[{' '.join(flags.endpoints)}]", "write-out": write_out, "hex": str(hexadecimal).lower()}
        for name, value in {**told, **times, "user": user.partition(":")[0]}.items():
            print(f"ETCDCTL_{name.upper().replace('-', '_')}={value}", file=sys.stderr)


def _seconds(name: str, text: str) -> float:
    try:
        return gotext.seconds(text)
    except gotext.GoTextError as error:
        print(f"{text!r} is not a duration: write for example 5s or 500ms.", file=sys.stderr)
        fail(f'invalid argument {gotext.quote(text)} for "--{name}" flag: {error}')


def build(verbs: Iterable[str], inner: str = "") -> typer.Typer:
    """An app with these verbs alone, and of a group's with `inner` alone when it has that."""
    app = typer.Typer(
        cls=Verbs,
        help="Talk to the store: etcd's verbs, flags and outputs.",
        epilog="Examples:  kvctl put /greeting hello   |   kvctl get /fleet/v1/ --prefix   |   kvctl watch /greeting",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings=_CONTEXT,
    )
    app.callback()(settings)
    for verb in verbs:
        found = COMMANDS[verb]
        if isinstance(found, dict):
            some = [inner] if inner in found else list(found)
            help_text = f"{GROUPS[verb]}: {' '.join(found)}."
            group = typer.Typer(
                cls=Verbs, help=help_text, no_args_is_help=True, rich_markup_mode=None, context_settings=_CONTEXT
            )
            # A group stays one when only one of its verbs is asked for.
            group.callback()(lambda: None)
            for name in some:
                _add(group, name, found[name])
            app.add_typer(group, name=verb)
        else:
            _add(app, verb, found)
    return app


def _add(app: typer.Typer, name: str, command: Command) -> None:
    module, function, example = command
    found = getattr(importlib.import_module(f"cli.kvctl.{module}"), function)
    context = _PASSING if name == "bench" else _CONTEXT
    app.command(name, epilog=f"Example:  {example}", context_settings=context)(found)


def wanted(words: list[str]) -> tuple[list[str], str]:
    """The verb that an arranged command line means, and its inner one; all of them when it can't be told."""
    left = plain_words(words)
    verb = next(left, "")
    return ([verb], next(left, "")) if verb in COMMANDS else (list(COMMANDS), "")


def main() -> None:
    """The console script."""
    completing = completion.asked("kvctl")
    words = arranged(sys.argv[1:])
    verbs = (list(COMMANDS), "") if completing else wanted(words)
    try:
        code = build(*verbs)(args=words, prog_name="kvctl", standalone_mode=False)
    except TyperException as error:
        explained(error)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    raise SystemExit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
