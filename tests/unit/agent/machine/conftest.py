"""What tests of a machine's units share: a supervisor that runs, and nothing left of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.agent.machine.fix_machine import Machine


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    here = Machine(tmp_path)
    await here.start()
    yield here
    await here.clean()
