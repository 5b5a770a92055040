"""Carries the steps of a scenario out at one side; each gives an answer to compare."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import time
from dataclasses import replace
from functools import singledispatch
from typing import Any

from tests.conformance.etcd import steps as s
from tests.conformance.etcd.gateway import posted
from tests.conformance.etcd.normal import merged, pick
from tests.conformance.etcd.side import STUCK, Running, Side, run_program
from tests.conformance.members import Member, until

LONGEST_DESCRIPTION = 300
"""Characters of a step that are shown."""
CTL_TIMEOUT_S = 60.0
UNTIL_TIMEOUT_S = 60.0
UNTIL_PAUSE_S = 0.1


def describe(step: s.Step) -> str:
    """A step as a person reads it."""
    if isinstance(step, s.Ctl):
        return f"etcdctl {step.words}" + (f" <<< {step.stdin!r}"[:LONGEST_DESCRIPTION] if step.stdin else "")
    shown = [f"{name}={value!r}" for name, value in vars(step).items() if value and name not in ("since", "patience")]
    return f"{type(step).__name__}({', '.join(shown)})"[:LONGEST_DESCRIPTION]


def answer_of(step: s.Step, side: Side) -> Any:
    """Do a step, save what it wants saved, and return its answer with names put in."""
    if isinstance(step, s.Until):
        return _until(step, side)
    raw, shown = perform(step, side)
    for name, path in step.save.items():
        try:
            side.save(name, pick(raw, path))
        except (KeyError, IndexError, TypeError):
            return {STUCK: f"nothing at {path}", "answer": side.names.data(raw)}
    return side.names.data(shown(raw)) if shown else side.names.data(raw)


def _until(step: s.Until, side: Side) -> Any:
    end = time.monotonic() + UNTIL_TIMEOUT_S
    while True:
        answer = answer_of(step.step, side)
        if step.text in json.dumps(answer):
            return answer
        if time.monotonic() > end:
            return {STUCK: f"no {step.text} within {UNTIL_TIMEOUT_S:.0f} s", "answer": answer}
        time.sleep(UNTIL_PAUSE_S)


def words_of(step: s.Ctl | s.Begin, side: Side) -> list[str]:
    at = [side.member(step.at)] if step.at else None
    words = [str(s.fill(word, side.values)) for word in shlex.split(step.words)]
    return side.members.ctl_command(*words, at=at)


@singledispatch
def perform(step: s.Step, side: Side) -> tuple[Any, Any]:
    """Do a step; its answer as it came, and how it is shown if not as it is."""
    raise TypeError(f"no such step: {step!r}")


@perform.register
def _ctl(step: s.Ctl, side: Side) -> tuple[Any, Any]:
    try:
        done = subprocess.run(
            words_of(step, side),
            input=str(s.fill(step.stdin, side.values)),
            capture_output=True,
            text=True,
            timeout=CTL_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return {STUCK: f"no end within {CTL_TIMEOUT_S:.0f} s"}, None
    failed = {"exit": done.returncode, "stderr": side.names.output(done.stderr)} if done.returncode else {}
    if "-w json" in step.words and done.stdout:
        answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith(("{", "["))]
        return (answers[0] if len(answers) == 1 else answers), lambda raw: {"stdout": raw, **failed}
    return {"stdout": side.names.output(done.stdout), **failed}, None


@perform.register
def _begin(step: s.Begin, side: Side) -> tuple[Any, Any]:
    side.running[step.name] = Running(words_of(step, side))
    return {}, None


@perform.register
def _type(step: s.Type, side: Side) -> tuple[Any, Any]:
    side.running[step.name].write(str(s.fill(step.text, side.values)))
    return {}, None


@perform.register
def _lines(step: s.Lines, side: Side) -> tuple[Any, Any]:
    running = side.running[step.name]
    lines, whole = running.read(step.count)
    answer: dict[str, Any] = {"lines": side.names.output("\n".join(lines))}
    if not whole:
        answer[STUCK] = "nothing more came"
    elif not step.count:
        answer["exit"] = running.process.wait()
    return answer, None


@perform.register
def _call(step: s.Call, side: Side) -> tuple[Any, Any]:
    metadata = s.fill(step.metadata, side.values)
    return side.call(step.method, s.fill(step.request, side.values), step.at, metadata, step.patience), None


@perform.register
def _open(step: s.Open, side: Side) -> tuple[Any, Any]:
    at = side.address(step.at)
    return side.foreign.do(
        "open", at=at, stream=step.name, method=step.method, metadata=s.fill(step.metadata, side.values)
    ), None


@perform.register
def _send(step: s.Send, side: Side) -> tuple[Any, Any]:
    return side.foreign.do("send", stream=step.name, request=s.fill(step.request, side.values)), None


@perform.register
def _take(step: s.Take, side: Side) -> tuple[Any, Any]:
    taken = side.foreign.do("take", stream=step.name, responses=step.responses, events=step.events, end=step.end)
    if step.whole:
        return taken, None
    return taken, lambda raw: {**raw, "responses": merged(raw["responses"])}


@perform.register
def _close(step: s.Close, side: Side) -> tuple[Any, Any]:
    return side.foreign.do("close", stream=step.name), None


@perform.register
def _cancel(step: s.Cancel, side: Side) -> tuple[Any, Any]:
    return side.foreign.do("cancel", stream=step.name), None


@perform.register
def _fetch(step: s.Fetch, side: Side) -> tuple[Any, Any]:
    return side.fetch(step.path, step.at), None


@perform.register
def _post(step: s.Post, side: Side) -> tuple[Any, Any]:
    body = step.body if isinstance(step.body, str) else json.dumps(s.fill(step.body, side.values))
    headers = {name: str(s.fill(value, side.values)) for name, value in step.headers.items()}
    return posted(side.address(step.at), step, body, headers), None


@perform.register
def _program(step: s.Program, side: Side) -> tuple[Any, Any]:
    return run_program(step.script, side, step.at), None


@perform.register
def _stop(step: s.Stop, side: Side) -> tuple[Any, Any]:
    for role in step.roles:
        side.member(role).send(signal.SIGSTOP)
    return {}, None


@perform.register
def _continue(_: s.Continue, side: Side) -> tuple[Any, Any]:
    side.continue_all()
    return {}, None


@perform.register
def _do(step: s.Do, side: Side) -> tuple[Any, Any]:
    perform(step.step, side)
    return {}, None


@perform.register
def _join(step: s.Join, side: Side) -> tuple[Any, Any]:
    member: Member = replace(side.reserved[step.name])
    initial = f"{side.members.initial},{member.name}={member.peer_url}"
    side.members.members.append(member)
    member.start(initial, "existing")
    until(f"version told by {member.name}, see {member.log}", lambda: member.fetch("/version"))
    return {}, None
