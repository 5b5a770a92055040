"""systemd's units as plain values: files, commands, dependencies, and the life of a unit. Nothing here does I/O."""
