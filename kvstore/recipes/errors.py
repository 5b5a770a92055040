"""What a recipe can raise besides a StoreError. Nothing here talks."""

from __future__ import annotations


class RecipeError(Exception):
    """A recipe could not do what it was asked for."""


class SessionLost(RecipeError):
    """The session's lease is gone or may be, and with it every key that hung on it: locks, leads, entries."""


class InDoubt(RecipeError):
    """It may have happened or not: no answer came while the session lasted, or only a refusal of a later copy. It did
    not happen twice."""


class NotLeader(RecipeError):
    """Another one leads now, or nobody."""


class BarrierHeld(RecipeError):
    """The barrier is up already."""


class BarrierFull(RecipeError):
    """As many as the double barrier is for have entered already."""


class Conflict(RecipeError):
    """Others changed what a transaction had read, each time it was tried."""


class UnreadableValue(RecipeError):
    """A key holds something that the recipe did not write."""
