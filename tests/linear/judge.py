"""A history's verdict: both checks."""

from __future__ import annotations

from dataclasses import dataclass

from tests.linear import leases, revisions, search
from tests.linear.history import History, by_key


@dataclass(frozen=True)
class Judgement:
    """What is wrong, as sentences; nothing when all is right."""

    wrong: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.wrong) or "linearizable"


def judge(history: History) -> Judgement:
    """Search for an order of each key's operations, and hold all against the revisions."""
    wrong = []
    for key, operations in by_key(history.operations).items():
        verdict = search.check(operations)
        if verdict.linearizable is None:
            wrong.append(f"{key}: no order of the operations was found, nor that there is none")
        elif not verdict.linearizable:
            lines = "".join(f"\n    {one}" for one in verdict.stuck)
            wrong.append(f"{key} is not linearizable; no order gets beyond these:{lines}")
    return Judgement((*wrong, *revisions.check(history), *leases.check(history.leases)))
