"""What a `run` or `create` line wishes: the body of `containers/create`, and what concerns this process alone."""

from __future__ import annotations


class Wish:
    """A container to make, and how to stay with it. No dataclass: the import of that takes 10 ms."""

    def __init__(
        self,
        body: dict[str, object],
        *,
        image: str,
        name: str = "",
        streams: frozenset[str] = frozenset(),
        detach: bool = False,
        remove: bool = False,
        tty: bool = False,
        signals: bool = True,
        pull: str = "missing",
        cid_file: str = "",
    ) -> None:
        """`streams` are those of stdin, stdout, stderr that are joined; `signals`: ours are sent on."""
        self.body = body
        self.image, self.name = image, name
        self.streams, self.tty, self.signals = streams, tty, signals
        self.detach, self.remove = detach, remove
        self.pull, self.cid_file = pull, cid_file


class UsageError(Exception):
    """A line that docker itself would refuse; the text says why."""
