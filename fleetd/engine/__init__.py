"""The cluster's planner: one machine at a time leads, follows the records, and writes placements."""

from fleetd.engine.leader import Engine

__all__ = ["Engine"]
