"""Docker lines: what each form means, and what docker would refuse."""

from __future__ import annotations

import shlex

import pytest

from agent.units.docker_line import DockerLineError, DockerStep, parse_docker_line, parse_run_flags
from agent.units.docker_options import Link, Mount, PublishedPort, Ulimit


def step(line: str) -> DockerStep:
    found = parse_docker_line(shlex.split(line))
    assert found is not None
    return found


def test_the_papers_line() -> None:
    line = step("/usr/bin/docker run busybox /bin/sh -c 'while true; do echo Hello World; sleep 1; done'")
    assert line.verb == "run" and line.foreground and line.options is not None
    assert line.options.image == "busybox"
    assert line.options.command == ("/bin/sh", "-c", "while true; do echo Hello World; sleep 1; done")


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("-it x", "tty", True),
        ("-itd x", "detach", True),
        ("--rm=false x", "remove", False),
        ("-e A=1 -e B --env=C= x", "env", (("A", "1"), ("B", None), ("C", ""))),
        ("-p 80 -p8080:80/udp x", "ports", (PublishedPort(80), PublishedPort(80, "udp", "", 8080))),
        ("-p 127.0.0.1::80 x", "ports", (PublishedPort(80, "tcp", "127.0.0.1", 0),)),
        ("-p [::1]:1:2 x", "ports", (PublishedPort(2, "tcp", "::1", 1),)),
        ("-p 1-2:3-4 x", "ports", (PublishedPort(3, "tcp", "", 1), PublishedPort(4, "tcp", "", 2))),
        ("-v /a:/b:ro x", "mounts", (Mount("/b", "/a", "bind", True, make=True),)),
        ("-v data:/b x", "mounts", (Mount("/b", "data", "volume"),)),
        ("-v /b x", "mounts", (Mount("/b"),)),
        ("--tmpfs /t:size=1m x", "mounts", (Mount("/t", "", "tmpfs", False, ("size=1m",)),)),
        ("--mount type=bind,src=/a,dst=/b,readonly x", "mounts", (Mount("/b", "/a", "bind", True),)),
        ("--link one:link_one x", "links", (Link("one", "link_one"),)),
        ("-m 512m x", "memory", 512 * 1024 * 1024),
        ("--cpus 1.5 x", "cpus", 1.5),
        ("--ulimit nofile=1:2 x", "ulimits", (Ulimit("nofile", 1, 2),)),
        ("--add-host a:1.2.3.4 x", "add_hosts", (("a", "1.2.3.4"),)),
        ("--net host x", "network", "host"),
        ("--entrypoint= x", "entrypoint", ""),
        ("x -d", "command", ("-d",)),
        ("--label a=b -l c x", "labels", (("a", "b"), ("c", ""))),
        ("--stop-timeout 3 x", "stop_timeout", 3),
        ("-P x", "publish_all", True),
        ("--cap-add net_admin --cap-add=CAP_CHOWN --cap-add ALL x", "cap_add", ("net_admin", "CAP_CHOWN", "ALL")),
    ],
)
def test_flags_of_run(line: str, field: str, value: object) -> None:
    assert getattr(parse_run_flags(shlex.split(line)), field) == value


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("docker run", "docker run needs an image."),
        ("docker run --foo x", "unknown flag: --foo"),
        ("docker run -z x", "unknown shorthand flag: 'z' in -z"),
        ("docker run --name", "flag needs an argument: --name"),
        ("docker run -p 99999 x", "not a port between 1 and 65535"),
        ("docker run -m lots x", "'lots' is not a size"),
        ("docker run --rm --restart=always x", "--rm and --restart can't be combined"),
        ("docker run -p 1-3:1-2 x", "differ in length"),
        ("docker stop", "docker stop needs a container."),
        ("docker start -a a b", "takes one container"),
        ("docker pull a b", "takes one image"),
        ("docker run --cap-add=BOGUS x", 'invalid capability: "BOGUS"'),
        ("docker run --ip=999 x", "'999' is not an IPv4 address"),
    ],
)
def test_what_docker_refuses(line: str, said: str) -> None:
    with pytest.raises(DockerLineError, match=said.replace("(", "\\(")):
        parse_docker_line(shlex.split(line))


def test_other_verbs() -> None:
    assert step("/usr/bin/docker stop -t 2 web") == DockerStep("stop", targets=("web",), timeout=2.0)
    assert step("docker kill -s HUP web") == DockerStep("kill", targets=("web",), signal="HUP")
    assert step("dock rm -fv a b") == DockerStep("rm", targets=("a", "b"), force=True, volumes=True)
    assert step("docker rm a -f").force
    assert step("docker start -a web").foreground
    assert not step("docker start web").foreground
    assert step("docker -H unix:///x pull busybox:1").targets == ("busybox:1",)
    assert step("docker container run -d x").foreground is False


def test_what_is_not_ours_is_left_to_run() -> None:
    assert parse_docker_line(["/bin/sh", "-c", "docker run x"]) is None
    assert parse_docker_line(["/usr/bin/docker", "ps"]) is None
    assert parse_docker_line([]) is None


def test_restart_in_a_unit_is_ignored_aloud() -> None:
    assert "Restart= decides" in step("docker run --restart=always x").notices[0]
    assert step("docker run --device /dev/fuse --link a:b x").notices == (
        "--link is not supported yet and has no effect.",
        "--device is not supported yet and has no effect.",
    )
