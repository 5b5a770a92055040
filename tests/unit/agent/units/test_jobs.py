"""Dependencies: what a start or stop brings along, in which order, and what can't be."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from agent.units.builtin import is_builtin
from agent.units.errors import UnitFileError
from agent.units.jobs import DependencyError, Verb, transaction
from agent.units.model import Unit
from agent.units.spec import parse_unit
from agent.units.verify import verify


def units(**sections: str) -> Mapping[str, Unit]:
    return {
        f"{name}.service": parse_unit(f"{name}.service", f"[Unit]\n{lines}\n[Service]\nExecStart=/bin/{name}\n")
        for name, lines in sections.items()
    }


TABLE: dict[str, tuple[dict[str, str], Verb, str, str]] = {
    "alone": ({"a": ""}, "start", "", "+a"),
    "a need comes first": ({"a": "Requires=b.service\nAfter=b.service", "b": ""}, "start", "", "+b +a"),
    "a need that runs": ({"a": "Requires=b.service", "b": ""}, "start", "b", "+a"),
    "Before= turns the order": ({"a": "Wants=b.service\nBefore=b.service", "b": ""}, "start", "", "+a +b"),
    "a wish that is not here": ({"a": "Wants=b.service"}, "start", "", "+a"),
    "built-in needs": ({"a": "Requires=docker.service etcd2.service network-online.target"}, "start", "", "+a"),
    "rivals are stopped first": ({"a": "Conflicts=b.service", "b": ""}, "start", "b", "-b +a"),
    "a rival's word counts": ({"a": "", "b": "Conflicts=a.service"}, "start", "b", "-b +a"),
    "dependents stop too": ({"a": "", "b": "Requires=a.service\nAfter=a.service"}, "stop", "a b", "-b -a"),
    "parts stop too": ({"a": "", "b": "PartOf=a.service", "c": "BindsTo=b.service"}, "stop", "a b c", "-a -b -c"),
    "what wants it stays": ({"a": "", "b": "Wants=a.service"}, "stop", "a b", "-a"),
}


@pytest.mark.parametrize("name", TABLE)
def test_transaction(name: str) -> None:
    sections, verb, active, expected = TABLE[name]
    running = {f"{one}.service" for one in active.split()}
    jobs = transaction(units(**sections), "a.service", verb, running)
    said = [("+" if job.verb == "start" else "-") + job.unit.removesuffix(".service") for job in jobs]
    assert said == expected.split()


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"a": "Requires=b.service"}, "a.service requires b.service, which is not on this machine."),
        ({"a": "Requisite=b.service", "b": ""}, "wants b.service to be active already"),
        (
            {"a": "Requires=b.service\nAfter=b.service", "b": "After=a.service"},
            "The order of a.service, b.service goes round in a circle",
        ),
        ({"a": "Requires=b.service\nConflicts=b.service", "b": ""}, "conflict, and would have to run together"),
    ],
)
def test_what_can_not_be(sections: dict[str, str], message: str) -> None:
    with pytest.raises(DependencyError, match=message):
        transaction(units(**sections), "a.service", "start", set())


def test_builtin() -> None:
    assert is_builtin("multi-user.target") and not is_builtin("mine.target")


def test_verify_warns_and_refuses() -> None:
    text = "[Unit]\nRequires=db.service\n[Service]\nExecStart=/usr/bin/docker run --restart=always x\n"
    _, notices = verify("a.service", text)
    assert [str(one) for one in notices] == [
        "--restart=always is ignored: in a unit, Restart= decides.",
        "db.service is not a unit of this cluster yet; it does not start on a machine without it.",
    ]
    assert len(verify("a.service", text, known={"db.service"})[1]) == 1
    with pytest.raises(UnitFileError, match="unknown flag: --nope"):
        verify("a.service", "[Service]\nExecStart=/usr/bin/docker run --nope x\n")
    with pytest.raises(UnitFileError, match="be run yet"):
        verify("a.timer", "[Timer]\nOnCalendar=daily\n")
