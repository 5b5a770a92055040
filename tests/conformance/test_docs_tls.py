"""What docs/tls.md prints works, as it is printed, in a network of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.members import ROOT, etcdctl_path

FRAME = """
set -euo pipefail
trap 'kill $(jobs -p); wait' EXIT
ip link set lo up
{shell}
python - <<'END'
import asyncio
{python}
print("program:", asyncio.run(greet()))
END
"""


def blocks(page: str, kind: str) -> str:
    """All of a page's code of one kind, in its order."""
    return "\n".join(re.findall(rf"^```{kind}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))


@pytest.mark.skipif(etcdctl_path() is None, reason="etcdctl is not here: run make setup")
def test_the_page_about_tls_works_as_it_is_printed(tmp_path: Path) -> None:
    page = (ROOT / "docs/tls.md").read_text()
    script = FRAME.format(shell=blocks(page, "sh"), python=blocks(page, "python"))
    path = f"{Path(sys.executable).parent}:{Path(str(etcdctl_path())).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["unshare", "-n", "bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert done.stdout.count("OK\n") == 3, done.stdout
    assert lines.count("hello") == 2
    assert done.stdout.count('"health":"true"') == 2
    assert "program: b'hello'\n" in done.stdout
