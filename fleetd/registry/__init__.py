"""The cluster's records: the only place that knows key names. It implements what the agent needs of the cluster."""

from fleetd.registry.keys import NewerRecord, RegistryError
from fleetd.registry.registry import Registry

__all__ = ["NewerRecord", "Registry", "RegistryError"]
