"""fleet-monitor, the small native process that holds one payload, and the Python that talks to it."""
