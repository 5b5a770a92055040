"""Recipes for many processes that work together through the store: see docs/recipes.md. They work on any etcd v3
cluster; where etcd has a recipe of the kind, the keys are the same.
"""

from kvstore.recipes.barrier import Barrier
from kvstore.recipes.cache import WatchCache
from kvstore.recipes.counter import Counter
from kvstore.recipes.double_barrier import DoubleBarrier
from kvstore.recipes.election import Election
from kvstore.recipes.errors import (
    BarrierFull,
    BarrierHeld,
    Conflict,
    InDoubt,
    NotLeader,
    RecipeError,
    SessionLost,
    UnreadableValue,
)
from kvstore.recipes.lock import Lock
from kvstore.recipes.queue import PriorityQueue, Queue
from kvstore.recipes.session import Session
from kvstore.recipes.stm import Isolation, Transaction, transact

__all__ = [
    "Barrier",
    "BarrierFull",
    "BarrierHeld",
    "Conflict",
    "Counter",
    "DoubleBarrier",
    "Election",
    "InDoubt",
    "Isolation",
    "Lock",
    "NotLeader",
    "PriorityQueue",
    "Queue",
    "RecipeError",
    "Session",
    "SessionLost",
    "Transaction",
    "UnreadableValue",
    "WatchCache",
    "transact",
]
