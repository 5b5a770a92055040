"""Unit files: what is read, what is warned of, what is refused and where."""

from __future__ import annotations

import math

import pytest

from agent.units.command import expand_variables, parse_commands
from agent.units.errors import UnitError, UnitFileError
from agent.units.model import Unit
from agent.units.names import Host, parse_name, unescape
from agent.units.spec import parse_unit

HELLO = """[Unit]
Description=HelloService
Requires=docker.service
After=docker.service

[Service]
ExecStart=/usr/bin/docker run busybox \\
 /bin/sh -c "while true; do echo Hello World; sleep 1; done"

[Install]
WantedBy=multi-user.target
"""
HOST = Host("node1.example", "0123", "b00t", "6.1", "/run")


def service(lines: str, name: str = "a@7.service") -> Unit:
    return parse_unit(name, f"[Service]\n{lines}\nExecStart=/bin/a\n", host=HOST)


def test_the_papers_unit() -> None:
    unit = parse_unit("hello.service", HELLO)
    assert unit.notices == ()
    assert unit.unit.requires == unit.unit.after == ("docker.service",)
    assert unit.install.wanted_by == ("multi-user.target",)
    assert unit.service is not None
    loop = "while true; do echo Hello World; sleep 1; done"
    assert unit.service.start[0].argv == ("/usr/bin/docker", "run", "busybox", "/bin/sh", "-c", loop)


@pytest.mark.parametrize(
    ("lines", "field", "value"),
    [
        ("Environment=A=1 'B=two words' C=%i\nEnvironment=A=2", "environment", {"A": "2", "B": "two words", "C": "7"}),
        ("Environment=A=1\nEnvironment=\nEnvironment=D=4", "environment", {"D": "4"}),
        ("TimeoutStopSec=1min 30s", "timeout_stop", 90.0),
        ("TimeoutSec=infinity", "timeout_start", math.inf),
        ("TimeoutStartSec=0", "timeout_start", math.inf),
        ("KillSignal=SIGINT", "kill_signal", 2),
        ("KillSignal=RTMIN+1", "kill_signal", 35),
        ("SuccessExitStatus=1 TEMPFAIL SIGUSR1", "success_codes", {1, 75}),
        ("LimitNOFILE=10:20\nLimitCORE=infinity", "limits", {"NOFILE": (10, 20), "CORE": (-1, -1)}),
        ("WorkingDirectory=-/srv/%p", "working_directory", "/srv/a"),
        ("User=%H", "user", "node1.example"),
        ("PIDFile=a.pid", "pid_file", "/run/a.pid"),
        ("Type=idle", "type", "simple"),
        ("# a comment\n; another\nRestart=always", "restart", "always"),
    ],
)
def test_settings(lines: str, field: str, value: object) -> None:
    found = service(lines).service
    assert found is not None and getattr(found, field) == value


def test_memory_by_its_old_name_and_cpu() -> None:
    found = service("MemoryLimit=1G\nCPUQuota=150%\nTasksMax=10%").service
    assert found is not None
    assert (found.resources.memory_max, found.resources.cpu_quota, found.resources.tasks_max) == (2**30, 150.0, -0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[Service]\nExecStart=/bin/a 'x", "a.service:2:18: ExecStart=: The quote ' is never closed."),
        ("[Service]\nExecStart=/bin/a \\\n  b %Q", "a.service:3:5: ExecStart=: '%Q' is not a specifier"),
        ("[Service]\nExecStart=bin/a", "a.service:2:11: ExecStart=: The command 'bin/a' must be an absolute path"),
        ("[Service]\nExecStart=/bin/a\nRestart=sometimes", "a.service:3:9: Restart=: 'sometimes' is not one of no, "),
        ("[Service]\nExecStart=/bin/a\nRestartSec=5 parsec", "a.service:3:12: RestartSec=: '5 parsec' is not a span"),
        ("[Service]\nExecStart=/bin/a\nLimitNOFILE=20:10", "The soft limit of '20:10' is above the hard one"),
        ("[Service]\nExecStart=/bin/a\nExecStart=/bin/b", "one ExecStart= command only"),
        ("[Service]\nType=simple", "has no ExecStart="),
        ("[Service\nType=simple", "a.service:1:1: '[Service' is not a section header."),
        ("[Service]\nhello", "a.service:2:1: 'hello' is neither a section, a setting"),
        ("[Service]\nType=oneshot\nRestart=always\nExecStart=/bin/a", "does not go with Restart=always"),
        (
            "[Service]\nExecStart=/bin/a\n[X-Fleet]\nGlobal=true\nMachineID=ab",
            "Global=true does not go with MachineID=",
        ),
        ("[Service]\nExecStart=/bin/a\n[X-Fleet]\nMachineMetadata=region", "'region' is not key=value"),
        ("[Service]\nExecStart=/bin/a\nEnvironment=1A=x", "'1A=x' is not NAME=value"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(UnitFileError) as caught:
        parse_unit("a.service", text)
    assert message in str(caught.value)


def test_unknown_keys_are_named_with_their_line() -> None:
    unit = parse_unit("a.service", "[Service]\nExecStart=/bin/a\nFoo=1\nPrivateTmp=yes\nX-Mine=1\n[Odd]\nA=b\n")
    assert [str(notice) for notice in unit.notices] == [
        "line 3, column 1: Foo= in [Service] is unknown and ignored.",
        "line 4, column 1: PrivateTmp= in [Service] is not supported here and has no effect.",
        "line 7, column 1: The section [Odd] is unknown and ignored.",
    ]


def test_what_has_no_effect_is_said() -> None:
    unit = parse_unit(
        "a.service", "[Service]\nExecStart=/bin/a\nStandardOutput=null\nWatchdogSec=5\nExecReload=/bin/b\n"
    )
    assert [str(notice) for notice in unit.notices] == [
        "line 4, column 1: WatchdogSec= in [Service] is not supported here and has no effect.",
        "line 3, column 1: StandardOutput=null has no effect: what the unit prints goes to its journal.",
        "line 5, column 1: ExecReload= has no effect yet: nothing here asks a unit to reload.",
    ]


def test_x_fleet() -> None:
    text = """[Service]
ExecStart=/bin/a
[X-Fleet]
MachineMetadata=region=eu region=us
MachineMetadata="disk=ssd"
Conflicts=a@*.service
RescheduleAfter=2min
StopWhenIsolated=10
RunWhenIsolated=true
"""
    fleet = parse_unit("a@1.service", text).fleet
    assert fleet.required_metadata == {"region": {"eu", "us"}, "disk": {"ssd"}}
    assert fleet.conflicts == ("a@*.service",)
    assert (fleet.reschedule_after, fleet.stop_when_isolated, fleet.run_when_isolated) == (120.0, 10.0, True)


def test_drop_ins_come_after_and_can_reset() -> None:
    base = "[Service]\nExecStart=/bin/a\nEnvironment=A=1\n"
    unit = parse_unit(
        "a.service",
        base,
        dropins=[("20.conf", "[Service]\nEnvironment=C=3\n"), ("10.conf", "[Service]\nExecStart=\nExecStart=/bin/b\n")],
    )
    assert unit.service is not None
    assert [command.path for command in unit.service.start] == ["/bin/b"]
    assert unit.service.environment == {"A": "1", "C": "3"}


def test_a_machines_specifiers_wait_for_a_machine() -> None:
    text = "[Service]\nExecStart=/bin/a %H %i\n"
    there = parse_unit("a@x.service", text).service
    here = parse_unit("a@x.service", text, host=HOST).service
    assert there is not None and here is not None
    assert there.start[0].argv == ("/bin/a", "%H", "x")
    assert here.start[0].argv == ("/bin/a", "node1.example", "x")


def test_commands_prefixes_and_variables() -> None:
    first, second = parse_commands("-@/bin/sh name ${A}x $B $$C ${D:-no} ; +:/bin/b $B '\\x41' \\;", {})
    assert first.ignore_failure and not first.privileged and first.path == "/bin/sh"
    env = {"A": "1", "B": "two words"}
    assert expand_variables(first, env) == ("name", "1x", "two", "words", "$C", "no")
    assert second.privileged and expand_variables(second, env) == ("/bin/b", "$B", "A", ";")


def test_names() -> None:
    name = parse_name("web@3.service")
    assert (name.prefix, name.instance, name.kind, name.template) == ("web", "3", "service", "web@.service")
    assert parse_name("web@.service").instance == ""
    assert unescape("dev-a\\x2db\\x20c") == "dev/a-b c"
    assert unescape("\\xc3\\xa9\\xff") == "\u00c3\u00a9\u00ff"
    for bad in ("web", "we b.service", ".service", "a/b.service", "x" * 300 + ".service", "a.mp3"):
        with pytest.raises(UnitError):
            parse_name(bad)
