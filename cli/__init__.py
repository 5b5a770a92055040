"""The command lines: fleetctl, kvctl, dock and fleet-lab."""
