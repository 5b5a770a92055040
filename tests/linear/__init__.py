"""Linearizability of the store: members with faults, clients that remember, and the checks of what they saw."""
