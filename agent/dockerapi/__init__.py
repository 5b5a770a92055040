"""The Docker Engine API over a machine's containers."""
