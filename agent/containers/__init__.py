"""A machine's containers: their records, root file systems, specs and lives."""
