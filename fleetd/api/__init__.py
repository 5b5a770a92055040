"""The HTTP API on the machine's unix socket: fleet's own v1, and streams of ours under /fleetd/v1."""
