"""The examples of docs/recipes.md print what it says, and the lines that it shows are theirs."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.members import ROOT
from tests.unit.kvstore.members import Cluster

PAGE = (ROOT / "docs/recipes.md").read_text()
EXAMPLES = sorted(path.relative_to(ROOT) for path in (ROOT / "examples/recipes").glob("*.py"))
TIMEOUT_S = 60


def runs() -> Iterator[tuple[str, str]]:
    """Each example's command as printed, and what it prints."""
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL):
        yield from re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)


RUNS = dict(runs())


def test_every_example_is_on_the_page_once() -> None:
    assert [f"python {path}" for path in EXAMPLES] == sorted(RUNS)
    assert len(list(runs())) == len(EXAMPLES) >= 10


@pytest.mark.parametrize("command", RUNS, ids=[Path(command).stem for command in RUNS])
def test_an_example_prints_what_the_page_says_also_when_it_runs_again(cluster: Cluster, command: str) -> None:
    program, *words = command.split()
    assert program == "python"
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, *words, *cluster.endpoints], cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, RUNS[command], "")


def test_the_lines_on_the_page_are_in_the_examples() -> None:
    sources = [(ROOT / path).read_text() for path in EXAMPLES]
    shown = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert shown
    for lines in shown:
        indented = [textwrap.indent(lines, " " * depth) for depth in range(0, 17, 4)]
        assert any(text in source for text in indented for source in sources), lines
