"""fleet-lab: simulated machines on one host, to try the system on and to test it."""
