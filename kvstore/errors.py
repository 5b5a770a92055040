"""What a store call can raise. Codes are gRPC's names, messages are the store's own words. Nothing here talks."""

from __future__ import annotations

from kvstore.model import Header

CODES = (
    *("ok", "cancelled", "unknown", "invalid_argument", "deadline_exceeded", "not_found", "already_exists"),
    *("permission_denied", "resource_exhausted", "failed_precondition", "aborted", "out_of_range", "unimplemented"),
    *("internal", "unavailable", "data_loss", "unauthenticated"),
)
"""gRPC's status codes by number."""


class StoreError(Exception):
    """The store refused, or nobody answered."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Unavailable(StoreError):
    """No endpoint answered. A write may have happened all the same."""


class LeaseNotFound(StoreError):
    """The lease has expired, was revoked, or never was."""


class LeaseExists(StoreError):
    """A lease of that id is there already."""


class NoSpace(StoreError):
    """The store is over its quota and takes no writes."""


class TooLarge(StoreError):
    """The request is over the store's limit."""


class FutureRevision(StoreError):
    """The revision asked for has not come yet."""


class Compacted(StoreError):
    """History at and before `revision` is gone (0 when the store did not say from where on it has it). `header` is that
    of the answer that said so, of a watch."""

    def __init__(
        self,
        revision: int,
        message: str = "etcdserver: mvcc: required revision has been compacted",
        *,
        header: Header | None = None,
    ) -> None:
        super().__init__("out_of_range", message)
        self.revision = revision
        self.header = header


_BY_TEXT: tuple[tuple[str, type[StoreError]], ...] = (
    ("requested lease not found", LeaseNotFound),
    ("lease already exists", LeaseExists),
    ("database space exceeded", NoSpace),
    ("request is too large", TooLarge),
    ("message larger than max", TooLarge),
    ("is a future revision", FutureRevision),
    ("not supported for learner", Unavailable),
)


def of_status(number: int, message: str) -> StoreError:
    """The error for a gRPC status."""
    code = CODES[number] if 0 <= number < len(CODES) else "unknown"
    if "has been compacted" in message:
        return Compacted(0, message)
    for text, kind in _BY_TEXT:
        if text in message:
            return kind(code, message)
    from_member = message.startswith("etcdserver:")
    # A connection that breaks shows as any of these.
    broken = code in ("unknown", "cancelled", "internal") and not from_member
    silent = code in ("unavailable", "deadline_exceeded") or broken
    return Unavailable(code, message) if silent else StoreError(code, message)
